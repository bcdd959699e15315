// SPDX-License-Identifier: Apache-2.0
// Stands in for the verbs that run a model when Lacuna was built without llama.cpp.
#include "cli/common.h"
#include "cli/run/options.h"
#include "cli/verbs.h"

namespace lacuna::cli {

namespace {
int missing() { return bad_input("this build has no llama.cpp, which runs the models; 'make llama build' gets it"); }
}  // namespace

int verb_run(int, char**) { return missing(); }
int verb_compare(int, char**) { return missing(); }
int verb_calibrate(int, char**) { return missing(); }
int verb_tune(int, char**) { return missing(); }
std::string check_profiles(const std::string&, const std::string&) { return ""; }
int verb_kl(int, char**) { return missing(); }
int verb_task(int, char**) { return missing(); }

}  // namespace lacuna::cli
