// SPDX-License-Identifier: Apache-2.0
// docs/laws.md, the table of laws and the cards' exemptions name the same laws.
#include "conformance/laws.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

#include "engine/registry.h"

namespace lacuna::conformance {
namespace {

TEST(Laws, DocsSayWhatTheTableSays) {
  std::ifstream file(std::string(LACUNA_SOURCE_DIR) + "/docs/laws.md");
  ASSERT_TRUE(file) << "docs/laws.md is missing";
  std::set<std::string> written, wanted;
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("- `")) written.insert(line);
  for (const Law& law : kLaws) wanted.insert("- `" + std::string(law.name) + "`: " + std::string(law.says));
  for (const auto& line : wanted) EXPECT_TRUE(written.contains(line)) << "docs/laws.md lacks the line:\n" << line;
  for (const auto& line : written) EXPECT_TRUE(wanted.contains(line)) << "docs/laws.md has a line of no law:\n" << line;
}

TEST(Laws, ExemptionsNameLawsAndReasons) {
  for (const auto& entry : all_methods())
    for (const Exemption& e : entry.card->exemptions) {
      bool known = false;
      for (const Law& law : kLaws) known = known || (law.of == Of::method && law.name == e.law);
      EXPECT_TRUE(known) << entry.card->slug << ": exemption from '" << e.law << "', which is no law of methods";
      EXPECT_GE(e.reason.size(), 10u) << entry.card->slug << ": exemption from '" << e.law << "' gives no reason";
    }
}

}  // namespace
}  // namespace lacuna::conformance
