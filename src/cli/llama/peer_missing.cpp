// SPDX-License-Identifier: Apache-2.0
// Stands in for bench --peer llama when Lacuna was built without llama.cpp.
#include "cli/llama/peer.h"

namespace lacuna::cli {

Result<std::vector<std::unique_ptr<Peer>>> llama_peers(const Case&, const AttendProblem&, int) {
  return unsupported("this build has no llama.cpp to compare with; 'make llama build' gets it");
}

}  // namespace lacuna::cli
