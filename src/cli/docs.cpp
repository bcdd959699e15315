// SPDX-License-Identifier: Apache-2.0
// lacuna docs: writes docs/generated/ from the registry and the kernel lists. --check writes nothing
// and fails when the tree differs. The text depends on the sources alone, never on the machine.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/common.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "engine/packed_tensor.h"
#include "engine/registry.h"

namespace lacuna::cli {
namespace {

namespace fs = std::filesystem;

template <class Op>
std::string forms(const kernel::Kernel<Op>& k) {
  if (k.pack == PackFormat::none) return "what the call has";
  const PackFormat narrow = format_for(k, Dtype::f16), wide = format_for(k, Dtype::f32);
  if (narrow == wide) return name_of(wide);
  return fmt::format("{}; {} for bf16 and f32", name_of(narrow), name_of(wide));
}

constexpr const char* kHead = "<!-- Written by `lacuna docs`; do not edit: change the source and run it again. -->\n";

const std::string kIndex = std::string(kHead) +
    "# Methods and kernels\n"
    "- [Methods](methods.md): every method, one page each: parameters with ranges, limits, laws it does not obey.\n"
    "- [Kernels](kernels.md): every kernel, best first: what it needs, what it reads, which head dimensions it takes.\n\n"
    "`lacuna docs` writes these pages from the sources alone: they are the same on every machine. `make check`\n"
    "fails when they are stale.\n";

std::string paper_link(std::string_view paper) {
  constexpr std::string_view kArxiv = "arXiv:";
  if (paper.substr(0, kArxiv.size()) != kArxiv) return std::string(paper);
  return fmt::format("[{}](https://arxiv.org/abs/{})", paper, paper.substr(kArxiv.size()));
}

std::string cell(std::string_view text) {  // a bar would end a table's cell
  std::string out;
  for (const char ch : text) {
    if (ch == '|') out += '\\';
    out += ch;
  }
  return out;
}

std::string file_name(std::string_view slug) {
  std::string out(slug);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

std::string method_table() {
  std::string out = std::string(kHead) + "# Methods\n\n| method | family | what it does | paper |\n|---|---|---|---|\n";
  for (const auto& e : all_methods()) {
    const Card& c = *e.card;
    out += fmt::format("| [{0}](methods/{0}.md) | {1} | {2}{3} | {4} |\n", c.slug, c.family, e.wraps ? "Wrapper: " : "",
                       cell(c.summary), paper_link(c.paper));
  }
  return out;
}

std::string method_page(const MethodEntry& e) {
  const auto method = e.make();
  const Card& c = method->card();
  std::string out = fmt::format("{}# {}\n\n`{}`, {}, {}\n\n{}", kHead, c.title, c.slug, c.family, paper_link(c.paper),
                                paragraph(c.summary, "", 100));
  const auto params = describe_params(*method);
  out += "\n## Parameters\n";
  if (params.empty()) {
    out += "None.\n";
  } else {
    out += "| name | default | range | meaning |\n|---|---|---|---|\n";
    for (const auto& p : params)
      out += fmt::format("| `{}` | {} | {} | {} |\n", p.name, p.value.empty() ? "none" : p.value, cell(p.range), cell(p.help));
    out += "\n`preset=auto` or `preset=paper` sets all of them; single values win.\n";
  }
  if (!c.notes.empty()) out += "\n## Notes\n" + paragraph(c.notes, "", 100);
  out += "\n## Selection\n";
  out += fmt::format("- what a row's selection sees: {}\n", c.selects == "prefix" ? "keys up to the row's own" : c.selects);
  out += fmt::format("- rows that decide together: {}\n", c.granule);
  out += fmt::format("- the prompt's end: {}\n", c.reads_prompt_end ? "read; a chunk's end stands for it unless announced" : "not read");
  out += fmt::format("- lists: {}\n", c.shares_list_in_group ? "one per KV head's group of query heads" : "each query head may have its own");
  out += "\n## Laws\nAll of [laws.md](../../laws.md)";
  if (c.exemptions.empty()) out += ".\n";
  else {
    out += ", but for:\n";
    for (const auto& x : c.exemptions) out += fmt::format("- `{}`: {}\n", x.law, x.reason);
  }
  if (!c.keep_all.empty()) out += fmt::format("\nLeaves nothing out: `{}`.\n", c.keep_all);
  if (e.wraps) out += fmt::format("\nA wrapper: it stands behind the method it changes, `METHOD+{}`.\n", c.slug);
  out += fmt::format("\n## Run\n```\nlacuna run -m model.gguf -f text.txt --method {0}\nlacuna explain --method {0} --shape "
                     "hq=32,hkv=8,nq=512,nkv=8192,d=128\nLACUNA={0} GGML_BACKEND_PATH=build/release/liblacuna-ggml.so "
                     "llama-bench -m model.gguf -fa on\n```\nSource: `src/method/{1}/{2}.cpp`.\n",
                     e.wraps ? c.small : c.slug, c.family, file_name(c.slug));
  return out;
}

// Ranges of head_dim (multiples of 8, of quantised types of 32, 16 to 256) for which a kernel has no reason to refuse a
// plain call of `rows` rows, asked as if the machine had everything.
std::string head_dims(const kernel::Kernel<op::Attend>& k, Dtype kv, Precision precision, int rows) {
  std::string out;
  int first = 0, last = 0;
  const auto flush = [&] {
    if (first) out += fmt::format("{}{}", out.empty() ? "" : ", ", first == last ? std::to_string(first) : fmt::format("{}-{}", first, last));
    first = 0;
  };
  const int step = is_quantised(kv) ? static_cast<int>(block_size(kv)) : 8;
  for (int d = std::max(16, step); d <= 256; d += step) {
    const op::Attend::Args a = plain_call(format_for(k, kv), kv, precision, rows, d);
    // What a session packs for this precision decides whether the kernel's form is there.
    const bool packs = k.pack != PackFormat::pair16_bf16 || precision == Precision::fast;
    if (packs && !(k.why_not && k.why_not(a, 2))) {
      if (!first) first = d;
      last = d;
    } else {
      flush();
    }
  }
  flush();
  return out.empty() ? "-" : out;
}

template <class Op>
std::string kernel_list(const kernel::KernelList<Op>& list) {
  std::string out = "| kernel | needs | reads | |\n|---|---|---|---|\n";
  for (const auto* k : list)
    out += fmt::format("| `{}` | {} | {} | {} |\n", k->name, k->needs ? describe(k->needs) : "any x86-64", forms(*k),
                       k->only_forced ? k->only_forced : "");
  return out;
}

std::string kernel_matrix() {
  std::string out = std::string(kHead) + "# Kernels\nBest first: the first that has no reason to refuse takes the call "
                                         "(`lacuna explain` shows the walk).\n\n## attend\n" + kernel_list(kernel::attend_list);
  out += "\nHead dimensions taken (multiples of 8 from 16 to 256 were asked, of 32 for q8_0 and q4_0), by the cache's type, the precision and the rows of "
         "a call:\n\n| kernel | precision | rows | f16 | bf16 | f32 | q8_0, q4_0 |\n|---|---|---|---|---|---|---|\n";
  for (const auto* k : kernel::attend_list)
    for (const Precision p : {Precision::fast, Precision::high})
      for (const int rows : {1, 64}) {
        const std::string f16 = head_dims(*k, Dtype::f16, p, rows), bf16 = head_dims(*k, Dtype::bf16, p, rows),
                          f32 = head_dims(*k, Dtype::f32, p, rows), q8_0 = head_dims(*k, Dtype::q8_0, p, rows);
        if (f16 == "-" && bf16 == "-" && f32 == "-") continue;
        out += fmt::format("| `{}` | {} | {} | {} | {} | {} | {} |\n", k->name, p == Precision::fast ? "fast" : "high", rows, f16, bf16, f32, q8_0);
      }
  out += "\n## attend_grad\n" + kernel_list(kernel::attend_grad_list);
  out += "\n## strided_scores\n" + kernel_list(kernel::strided_scores_list);
  out += "\n## pack\n" + kernel_list(kernel::pack_list);
  out += "\n## side_write\n" + kernel_list(kernel::side_write_list);
  out += "\n## page_scores\n" + kernel_list(kernel::page_scores_list);
  out += "\n## label_scores\n" + kernel_list(kernel::label_scores_list);
  out += "\n## int4_scores\n" + kernel_list(kernel::int4_scores_list);
  out += "\n## int8_scores\n" + kernel_list(kernel::int8_scores_list);
  out += "\n## keep_mass\n" + kernel_list(kernel::keep_mass_list);
  out += "\n## top_weights\n" + kernel_list(kernel::top_weights_list);
  out += "\n## exact_mass\n" + kernel_list(kernel::exact_mass_list);
  out += "\n## line_sums\n" + kernel_list(kernel::line_sums_list);
  out += "\n## segment_mass\n" + kernel_list(kernel::segment_mass_list);
  out += "\n## attend_maxima\n" + kernel_list(kernel::attend_maxima_list);
  out += "\n## alike\n" + kernel_list(kernel::alike_list);
  out += "\n## range_sums\n" + kernel_list(kernel::range_sums_list);
  return out;
}

std::map<std::string, std::string> pages() {
  std::map<std::string, std::string> out = {{"README.md", kIndex}, {"methods.md", method_table()}, {"kernels.md", kernel_matrix()}};
  for (const auto& e : all_methods()) out[fmt::format("methods/{}.md", e.card->slug)] = method_page(e);
  return out;
}

// docs/generated of the working folder, or of the tree that holds build/<preset>/lacuna.
fs::path default_folder() {
  std::error_code bad;
  if (fs::exists("src/method/list.inc", bad)) return fs::path("docs/generated");
  return (fs::path(own_path()).parent_path() / "../../docs/generated").lexically_normal();
}

// Files of the folder that no page accounts for.
std::vector<std::string> strangers(const fs::path& folder, const std::map<std::string, std::string>& wanted) {
  std::vector<std::string> out;
  std::error_code bad;
  for (fs::recursive_directory_iterator it(folder, bad), end; it != end; it.increment(bad))
    if (it->is_regular_file() && it->path().extension() == ".md" && !wanted.count(fs::relative(it->path(), folder).generic_string()))
      out.push_back(fs::relative(it->path(), folder).generic_string());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

int verb_docs(int argc, char** argv) {
  CLI::App app("Writes the generated pages of the documentation.", "docs");
  bool check = false;
  std::string folder;
  JsonSink json;
  app.add_flag("--check", check, "write nothing; fail when the pages differ from the program");
  app.add_option("--out", folder, "where (default: docs/generated)");
  json.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  const fs::path root = folder.empty() ? default_folder() : fs::path(folder);
  const auto wanted = pages();
  nlohmann::ordered_json stale = nlohmann::ordered_json::array(), written = nlohmann::ordered_json::array();
  const auto old = strangers(root, wanted);
  for (const auto& [name, text] : wanted) {
    std::ifstream in(root / name, std::ios::binary);
    const std::string there{std::istreambuf_iterator<char>(in), {}};
    if (in.is_open() && there == text) continue;
    stale.push_back(name);
    if (check) continue;
    std::error_code bad;
    fs::create_directories((root / name).parent_path(), bad);
    if (const std::string why = write_text((root / name).string(), text); !why.empty())
      return bad_input(fmt::format("{}: cannot write it ({}); is the folder writable?", (root / name).string(), why));
    written.push_back(name);
  }
  for (const std::string& name : old) {
    stale.push_back(name);
    std::error_code bad;
    if (!check && !fs::remove(root / name, bad)) return bad_input(fmt::format("{}: cannot remove it", (root / name).string()));
  }
  if (json.wanted()) {
    const std::string why = json.write({{"folder", root.string()}, {"pages", wanted.size()}, {"stale", stale}, {"written", written}});
    if (!why.empty()) return bad_input(why);
  }
  if (!json.on_stdout()) {
    for (const auto& name : stale) fmt::print("{} {}\n", check ? "differs:" : "written:", name.get<std::string>());
    if (check && !stale.empty()) fmt::print("run 'lacuna docs' and commit {}\n", root.string());
    else fmt::print("{} pages in {}\n", wanted.size(), root.string());
  }
  return check && !stale.empty() ? kFailedCheck : kOk;
}

}  // namespace lacuna::cli
