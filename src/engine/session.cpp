// SPDX-License-Identifier: Apache-2.0
// Session: one method at work. attend() is the whole path of a call:
//   visible -> plan (per sequence) -> lower -> pick -> run -> audit -> count.
#include "engine/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>

#include <fmt/format.h>

#include "engine/registry.h"

namespace lacuna {

const char* version() { return LACUNA_VERSION; }

Session::Session() : impl_(std::make_unique<Impl>()) {}
Session::~Session() = default;

Result<std::unique_ptr<Session>> Session::open(const Options& options) {
  std::unique_ptr<Session> session(new Session);
  Impl& s = *session->impl_;
  auto method = make_method(options.method, {.profiles = !options.calibrate});
  if (!method.ok()) return method.error();
  constexpr int kMostThreads = 1024;
  if (options.threads < 0 || options.threads > kMostThreads)
    return bad_argument(fmt::format("threads: got {}, need 0 (one per core) to {}", options.threads, kMostThreads));
  s.method = std::move(method.value());
  s.spec = canonical_spec(*s.method);
  if (options.calibrate) {
    auto calibrator = make_calibrator(*s.method);
    if (!calibrator.ok()) return calibrator.error();
    s.calibrator = std::move(calibrator.value());
  }
  s.options = options;
  LACUNA_CHECK(s.open_candidates());
  LACUNA_CHECK(s.open_contract());
  LACUNA_CHECK(s.open_certificate());
  s.have = detect_features();
  if (!options.machine.empty()) {
    bool known = true;
    s.have = mask_features(s.have, options.machine.c_str(), &known);
    if (!known)
      return unknown_name(fmt::format("machine '{}': need none, avx2, avx512, avx512bf16 or amx", options.machine));
  }
  LACUNA_CHECK(s.force(options.kernel));
  if (options.parallel) {
    s.parallel = options.parallel;
  } else {
    s.own_pool = make_thread_pool(options.threads);
    s.parallel = s.own_pool.get();
  }
  s.rng = Rng(options.seed);
  s.recall_rng = Rng(~options.seed);  // its draws change nothing of which rows are audited
  if (options.patterns) s.patterns = std::make_unique<Patterns>();
  return session;
}

// A forced kernel must take whatever the session may be asked: what it refuses of a plain prompt it
// refuses now, and not in the middle of a model.
Status Session::Impl::force(const std::string& name) {
  if (name.empty()) return {};
  forced = find_attend(name);
  if (!forced) {
    std::vector<std::string> names;
    for (const auto* k : kernel::attend_list) names.emplace_back(k->name);
    return unknown_name(fmt::format("kernel '{}': need one of {}", name, fmt::join(names, ", ")));
  }
  if (const std::string missing = missing_features(have, forced->needs); !missing.empty())
    return unsupported(fmt::format("kernel '{}' {}; there is {}", name, missing, describe(have)));
  if (forced->pack == PackFormat::pair16_bf16 && options.precision == Precision::high)
    return unsupported(fmt::format("kernel '{}' rounds to bf16: need precision=fast, or another kernel", name));
  constexpr int kManyRows = 64, kHeadDim = 64;
  const auto prompt = plain_call(format_for(*forced, Dtype::f16), Dtype::f16, options.precision, kManyRows, kHeadDim);
  if (const char* why = forced->why_not ? forced->why_not(prompt, 1) : nullptr)
    return unsupported(fmt::format("kernel '{}' does not take a prompt ({}): need another one, or none", name, why));
  return {};
}

void Session::new_graph() {
  impl_->masks_used = 0;
  impl_->graphs = true;
}

void Session::announce(int n_layers, std::int64_t prompt_tokens) {
  impl_->n_layers = std::max(n_layers, 0);
  impl_->prompt_tokens = prompt_tokens;
}

namespace {

Status check_tensor(const char* name, const Tensor& t, bool need_f32) {
  if (!t.data && t.n[1] > 0 && t.n[2] > 0 && t.n[3] > 0) return bad_argument(fmt::format("{}: no data", name));
  if (t.n[0] != 1) return bad_argument(fmt::format("{}: batch {}, need 1 (batches are separate calls)", name, t.n[0]));
  if (t.stride[3] != 1)
    return bad_argument(fmt::format("{}: channel stride {}, need 1; copy it so that channels lie side by side", name, t.stride[3]));
  if (need_f32 && t.dtype != Dtype::f32) return bad_argument(fmt::format("{}: type {}, need f32", name, name_of(t.dtype)));
  if (const std::int64_t block = block_size(t.dtype); block > 1) {
    if (t.n[3] % block)
      return bad_argument(fmt::format("{}: {} channels of {}, need a multiple of {}, its block; take f16 for this head_dim",
                                      name, t.n[3], name_of(t.dtype), block));
    for (int i = 0; i < 3; ++i)
      if (t.stride[i] % block)
        return bad_argument(fmt::format("{}: stride {} in dimension {} of {}, need a multiple of {}: rows begin with a block",
                                        name, t.stride[i], i, name_of(t.dtype), block));
  }
  // 2^30 leaves room for int32 row and cell numbers rounded up to a block.
  constexpr std::int64_t kLargest = std::int64_t{1} << 30, kFarthest = std::int64_t{1} << 60;
  std::int64_t last = 0;  // element number of the last element, from data
  for (int i = 0; i < 4; ++i) {
    if (t.n[i] < 0 || t.n[i] > kLargest)
      return bad_argument(fmt::format("{}: size {} in dimension {}, need 0..{}", name, t.n[i], i, kLargest));
    if (t.stride[i] < 0)
      return bad_argument(fmt::format("{}: stride {} in dimension {}, need 0 or more: point data at the first row",
                                      name, t.stride[i], i));
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(t.stride[i], std::max<std::int64_t>(t.n[i] - 1, 0), &reach) || reach > kFarthest ||
        (last += reach) > kFarthest)
      return bad_argument(fmt::format("{}: stride {} in dimension {} of size {} reaches beyond any memory", name,
                                      t.stride[i], i, t.n[i]));
  }
  return {};
}

// Rows that are written must not share elements: two workers would write them.
Status check_apart(const char* name, const Tensor& t) {
  const std::int64_t heads = t.heads(), rows = t.tokens(), head = t.stride[1], row = t.stride[2];
  const bool rows_inside = (rows < 2 || row >= t.dim()) && (heads < 2 || head >= (rows - 1) * row + t.dim());
  const bool heads_inside = (heads < 2 || head >= t.dim()) && (rows < 2 || row >= (heads - 1) * head + t.dim());
  if (t.n[3] > 0 && rows > 0 && !rows_inside && !heads_inside)
    return bad_argument(fmt::format("{}: head stride {} and row stride {} let rows of {} channels overlap: lay "
                                    "them apart", name, head, row, t.dim()));
  return {};
}

}  // namespace

Status check_floats(const char* name, const Tensor& t, std::int64_t heads, std::int64_t tokens, std::int64_t dim) {
  LACUNA_CHECK(check_tensor(name, t, true));
  if (t.heads() != heads || t.tokens() != tokens || t.dim() != dim)
    return bad_argument(fmt::format("{} is [{}, {}, {}], need [{}, {}, {}]", name, t.heads(), t.tokens(), t.dim(), heads, tokens, dim));
  return {};
}

Status check_written(const char* name, const Tensor& t, std::int64_t heads, std::int64_t tokens, std::int64_t dim) {
  LACUNA_CHECK(check_floats(name, t, heads, tokens, dim));
  return check_apart(name, t);
}

Status check_inputs(const AttendCall& c) {
  LACUNA_CHECK(check_tensor("q", c.q, true));
  if (c.k.tokens() != 0) {
    LACUNA_CHECK(check_tensor("k", c.k, false));
    LACUNA_CHECK(check_tensor("v", c.v, false));
  }
  if (c.k.dtype != c.v.dtype && !is_quantised(c.k.dtype) && !is_quantised(c.v.dtype))
    return bad_argument(fmt::format("k is {} and v is {}: both must be of one type, or one of them q8_0 or q4_0",
                                    name_of(c.k.dtype), name_of(c.v.dtype)));
  const std::int64_t hq = c.q.heads(), hkv = c.k.heads();
  if (hq < 1 || hkv < 1 || hq % hkv)
    return bad_argument(fmt::format("{} query heads over {} KV heads: the first must be a multiple of the second", hq, hkv));
  if (c.v.heads() != hkv || c.v.tokens() != c.k.tokens())
    return bad_argument(fmt::format("k has {} heads x {} cells, v has {} x {}: they must agree", hkv, c.k.tokens(),
                                    c.v.heads(), c.v.tokens()));
  if (c.q.dim() != c.k.dim() || c.q.dim() < 1 || c.q.dim() > 1024)
    return bad_argument(fmt::format("head_dim of q is {}, of k {}: they must agree, 1..1024", c.q.dim(), c.k.dim()));
  if (c.v.dim() < 1 || c.v.dim() > 1024) return bad_argument(fmt::format("head_dim of v is {}, need 1..1024", c.v.dim()));
  if (!(c.softcap >= 0) || std::isinf(c.softcap))
    return bad_argument(fmt::format("softcap: got {}, need 0 (none) or more", c.softcap));
  if (!std::isfinite(c.scale)) return bad_argument(fmt::format("scale: got {}, need a number; 0 = 1 / sqrt(Dk)", c.scale));
  if (c.mask.data && c.mask.row_stride < c.k.tokens() && c.q.tokens() > 1 && c.mask.row_stride != 0)
    return bad_argument(fmt::format("mask: row stride {}, need {} (cells) or more, or 0 for one row shared by all",
                                    c.mask.row_stride, c.k.tokens()));
  return {};
}

Session::Impl::MaskEntry& Session::Impl::mask_entry(const AttendCall& c) {
  const auto n_rows = static_cast<std::int32_t>(c.q.tokens());
  const std::int64_t n_cells = c.k.tokens();
  const auto fits = [&](const MaskEntry& e) { return e.visible.n_rows() == n_rows && e.visible.n_cells() == n_cells; };
  if (!c.mask.data) {  // rows and cells say it all: kept from call to call
    if (!fits(no_mask)) read_mask(c.mask, n_rows, n_cells, no_mask);
    return no_mask;
  }
  if (!graphs) masks_used = 0;  // nobody tells us when a mask changes: read it anew
  for (std::size_t i = 0; i < masks_used; ++i)
    if (masks[i]->key == c.mask.data && fits(*masks[i])) return *masks[i];
  if (masks_used == masks.size()) masks.push_back(std::make_unique<MaskEntry>());
  MaskEntry& e = *masks[masks_used++];
  read_mask(c.mask, n_rows, n_cells, e);
  return e;
}

void Session::Impl::read_mask(const Mask& mask, std::int32_t n_rows, std::int64_t n_cells, MaskEntry& e) {
  e.key = mask.data;
  e.visible = Visibility::from_mask(mask, n_rows, n_cells);
  lower_dense(e.visible, 0, n_rows, kBlockQ, e.dense);
  e.allowed_pairs = e.dense.attended_pairs;
  e.decode = true;
  for (const auto& s : e.visible.segments()) e.decode = e.decode && s.rows() == 1;
}

// Fills everything but rows, runs and lse; packed copies are the caller's to ask for.
op::Attend::Args Session::Impl::base_args(const AttendCall& c, const MaskEntry& mask) {
  op::Attend::Args a;
  a.hq = static_cast<std::int32_t>(c.q.heads());
  a.hkv = static_cast<std::int32_t>(c.k.heads());
  a.dk = static_cast<std::int32_t>(c.q.dim());
  a.dv = static_cast<std::int32_t>(c.v.dim());
  a.n_rows = static_cast<std::int32_t>(c.q.tokens());
  a.n_cells = c.k.tokens();
  a.q = static_cast<const float*>(c.q.data);
  a.q_head = c.q.stride[1];
  a.q_row = c.q.stride[2];
  a.k = c.k.data;
  a.v = c.v.data;
  a.k_type = c.k.dtype;
  a.v_type = c.v.dtype;
  a.k_head = c.k.stride[1];
  a.k_cell = c.k.stride[2];
  a.v_head = c.v.stride[1];
  a.v_cell = c.v.stride[2];
  a.precision = options.precision;
  a.scale = c.scale != 0 ? c.scale : 1.0f / std::sqrt(static_cast<float>(a.dk));
  a.softcap = c.softcap;
  a.sinks = c.sinks;
  if (mask.visible.additive()) {
    a.bias = c.mask.data;
    a.bias_row = c.mask.row_stride;
    a.slope = c.slopes;
  }
  a.out = static_cast<float*>(c.out.data);
  a.out_head = c.out.stride[1];
  a.out_row = c.out.stride[2];
  keys_packed = values_packed = false;
  return a;
}

const PackedView& Session::Impl::packed_keys(const AttendCall& c) {
  if (!keys_packed) call_k = packed(c, c.packed_k, c.k, op::Pack::Role::key, own_k);
  keys_packed = true;
  return call_k;
}

const PackedView& Session::Impl::packed_values(const AttendCall& c) {
  if (!values_packed) call_v = packed(c, c.packed_v, c.v, op::Pack::Role::value, own_v);
  values_packed = true;
  return call_v;
}

// The host's packed copy if it fits this session's kernels, else a copy made for this call.
PackedView Session::Impl::packed(const AttendCall& c, const PackedTensor* kept, const Tensor& raw, op::Pack::Role role,
                                 Buffer& own) {
  const PackFormat format = choose_format(have, both_in(c.k.dtype, c.v.dtype), options.precision, forced);
  if (format == PackFormat::none) return {};
  if (kept && kept->impl_->view.format == format && kept->impl_->view.heads == raw.heads() &&
      kept->impl_->view.dim == raw.dim() && kept->impl_->view.cells >= c.k.tokens())
    return kept->impl_->view;
  PackedView view{nullptr, format, static_cast<std::int32_t>(raw.heads()), static_cast<std::int32_t>(raw.dim()),
                  raw.tokens()};
  const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(view.cells) * view.heads);
  view.data = own.grow(bytes + 64);
  if (padded_dim(view.dim) != view.dim) {
    std::memset(own.data(), 0, bytes);
  } else if (view.cells % kTileKeys && view.cells > 0) {
    const std::size_t tile = view.block_bytes() * static_cast<std::size_t>(view.heads);
    std::memset(static_cast<char*>(own.data()) + tile * static_cast<std::size_t>(view.cells / kTileKeys), 0, tile);
  }
  op::Pack::Args a = pack_args(role, raw, view);
  a.n = raw.tokens();
  pack_cells(have, a, parallel);
  return view;
}

// Keys of a segment as methods want them: in order, from a cell that is a multiple of 16.
OrderedKeys Session::Impl::ordered_keys(const AttendCall& c, const Segment& s) {
  const PackedView& packed_k = packed_keys(c);
  if (s.contiguous() && s.first_cell % 16 == 0) return {packed_k, s.first_cell};
  PackedView view = packed_k;
  view.cells = s.n_keys;
  const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(s.n_keys) * view.heads);
  view.data = ordered.grow(bytes + 64);
  std::memset(ordered.data(), 0, bytes);
  from_list.resize(static_cast<std::size_t>(s.n_keys));
  to_list.resize(static_cast<std::size_t>(s.n_keys));
  for (std::int64_t j = 0; j < s.n_keys; ++j) {
    from_list[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(s.cell(j));
    to_list[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(j);
  }
  op::Pack::Args a = pack_args(op::Pack::Role::key, c.k, view);
  a.from = from_list.data();
  a.to = to_list.data();
  a.n = s.n_keys;
  pack_cells(have, a, parallel);
  return {view, 0};
}

const SideRequest& Session::Impl::side_request(int layer) {
  const auto at = static_cast<std::size_t>(std::max(layer, 0));
  if (at >= side_requests.size()) side_requests.resize(at + 1);
  if (!side_requests[at]) {
    SideSpec want = method->side(layer);
    for (const auto& list : candidates)  // the first that wants something
      for (const auto& m : list)
        if (want.none()) want = m->side(layer);
    want.int8 = want.int8 || (certificate && method->card().slug != "dense");  // what bounds rest on
    side_requests[at] = make_request(want);
  }
  return side_requests[at];
}

SideRequest Session::side(int layer) const {
  const SideRequest& request = impl_->side_request(layer);
  return request->none() ? nullptr : request;
}

// The host's side data if it holds what the method wants, else data made for this call, once.
const SideView& Session::Impl::side_of(const AttendCall& c) {
  if (side) return *side;
  const SideSpec& want = *side_request(c.layer);
  const int heads = static_cast<int>(c.k.heads()), dim = static_cast<int>(c.k.dim());
  const SideStore* kept = c.packed_k && !want.none() ? &c.packed_k->impl_->side : nullptr;
  if (!kept || !kept->serves(want, c.k.tokens(), heads, dim)) {
    own_side.open(want, c.k.dtype, c.k.tokens(), heads, dim);
    op::SideWrite::Args a = side_args(c.k, own_side.view());
    a.n = c.k.tokens();
    if (!own_side.empty()) write_side(have, a, parallel);
    kept = &own_side;
  }
  return *(side = &kept->view());
}

// A method sees keys up to a row's own only; where the model lets a row see more, nothing is left out.
bool Session::Impl::causal(const Visibility& v, const Segment& s) {
  if (s.key_of_row[0] < 0) return false;  // begins with rows that see nothing
  for (std::int32_t i = 0; i < s.rows(); ++i) {
    const std::int32_t own = s.key_of_row[static_cast<std::size_t>(i)];
    if (own != s.key_of_row[0] + i) return false;
    if (own + 1 < s.n_keys && v.sees(s.row_begin + i, s.cell(own + 1))) return false;
  }
  return true;
}

// Whether the model itself lets the rows of this layer see only their nearest keys (sliding windows, chunks).
// A call of several rows shows it once their last does not see their first key; a single row never does.
bool Session::Impl::windowed(const AttendCall& c, const MaskEntry& mask) {
  const auto layer = static_cast<std::size_t>(std::max(c.layer, 0));
  if (layer >= windowed_layers.size()) windowed_layers.resize(layer + 1);
  const Visibility& v = mask.visible;
  for (const Segment& s : v.segments()) {
    const std::int32_t last = s.row_end - 1;
    if (s.rows() > 1 && s.n_keys > 0 && v.visible_keys(last) > 0 && !v.sees(last, s.cell(0))) windowed_layers[layer] = true;
  }
  return windowed_layers[layer];
}

AttentionView Session::Impl::view_of(const AttendCall& c, const MaskEntry& mask, const Segment& s, const op::Attend::Args& args,
                                     SegmentKeys& keys) {
  AttentionView x;
  x.layer = c.layer;
  x.n_layers = n_layers;
  x.phase = s.rows() == 1 ? Phase::decode : Phase::prefill;
  x.grid = {args.hq, s.rows(), s.n_keys, s.key_of_row[0]};
  x.hkv = args.hkv;
  x.dk = args.dk;
  x.scale = args.scale;
  x.prompt_tokens = prompt_tokens;
  x.q = args.q + s.row_begin * args.q_row;
  x.q_head = args.q_head;
  x.q_row = args.q_row;
  x.keys = &keys;
  keys.bind(*this, c, s);
  x.cells = {.n = args.n_cells,
             .visible = mask.visible.words(s.row_begin),
             .visible_row = mask.visible.n_tiles(),
             .own = s.cell(s.key_of_row[0]),
             .segment = &s,
             .side = side_of(c)};
  const std::int32_t* cells = s.contiguous() ? nullptr : s.cell_of_key.data();
  x.k = {args.k, args.k_type, args.k_head, args.k_cell, args.dk, s.first_cell, cells};
  x.v = {args.v, args.v_type, args.v_head, args.v_cell, args.dv, s.first_cell, cells};
  return x;
}

OrderedKeys Session::Impl::SegmentKeys::ordered() {
  if (!known_) keys_ = impl_->ordered_keys(*call_, *segment_);
  known_ = true;
  return keys_;
}

Result<Plan> Session::Impl::plan(const Method& by, const AttendCall& c, const MaskEntry& mask, const Segment& s, const op::Attend::Args& args) {
  if (s.rows() == 0 || s.n_keys == 0) return dense_plan("nothing to see");
  if (!causal(mask.visible, s)) return dense_plan("rows see keys after their own, or are not in order");
  if (choose_format(have, both_in(c.k.dtype, c.v.dtype), options.precision, forced) == PackFormat::none) return dense_plan("this machine has no AVX2: no estimator runs");
  SegmentKeys keys;
  return by.plan(view_of(c, mask, s, args, keys), *this);
}

// A profile of another model is worse than none: the session is dense from then on and says why. The
// calls tell heads, channels and layout at once; that there are too few layers they never tell.
void Session::Impl::check_profiles(const AttendCall& c) {
  all_layers_seen = all_layers_seen || c.layer <= last_layer;
  last_layer = c.layer;
  if (c.rope.base > 0 && std::find(rope_bases.begin(), rope_bases.end(), c.rope.base) == rope_bases.end() && rope_bases.size() < 8)
    rope_bases.push_back(c.rope.base);
  for (const Method* m = method.get(); m && unfit.empty(); m = m->inner()) {
    const ModelFacts* need = m->calibrated_for();
    if (!need) continue;
    ModelFacts here;
    here.hq = static_cast<int>(c.q.heads());
    here.hkv = static_cast<int>(c.k.heads());
    here.dk = static_cast<int>(c.k.dim());
    here.dv = static_cast<int>(c.v.dim());
    here.rope.layout = c.rope.layout;
    if (const int layers = std::max(n_layers, c.layer + 1); layers > need->n_layers) here.n_layers = layers;
    // Layers with a window may rotate with a base of their own: one base that fits is enough.
    bool fits = rope_bases.empty() || !all_layers_seen;
    for (const double base : rope_bases) fits = fits || std::abs(base - need->rope.base) <= 1e-4 * base;
    if (!fits) here.rope.base = rope_bases.back();
    if (const Status same = check_model(*need, here); !same.ok())
      unfit = fmt::format("{}.profile: {}", m->card().slug, same.error().what);
  }
}

Status Session::Impl::execute(const AttendCall& c, op::Attend::Args args) {
  if (args.packed_k.format == PackFormat::none && !taken_in_place(args, have, parallel->workers(), forced)) {
    args.packed_k = packed_keys(c);
    args.packed_v = packed_values(c);
  }
  const auto* k = pick(kernel::attend_list, args, have, parallel->workers(), options.kernel);
  if (!k) {
    std::vector<Refusal> refusals;
    (void)pick(kernel::attend_list, args, have, parallel->workers(), options.kernel, &refusals);
    std::string text = "no kernel of op attend takes this call";
    for (const auto& r : refusals) text += fmt::format("; {}: {}", r.kernel, r.reason);
    return unsupported(text);
  }
  if (args.n_rows > 1 || !kernel_used) kernel_used = k->name;
  run_kernel(*k, args, *parallel, workspace);
  return {};
}

op::Attend::Args Session::Impl::rows_of(op::Attend::Args a, std::int32_t begin, std::int32_t end) {
  a.n_rows = end - begin;
  a.q += begin * a.q_row;
  if (a.out) a.out += begin * a.out_row;
  if (a.bias) a.bias += begin * a.bias_row;
  return a;
}

double Session::Impl::kv_bytes(const op::Attend::Args& a, const LoweredRuns& runs) const {
  const double kv_heads = runs.heads == 1 ? a.hkv : 1;  // that read what a list names
  const auto raw_cell = static_cast<double>(bytes_of(a.k_type, a.dk) + bytes_of(a.v_type, a.dv));
  // A quantised cache is read where it lies, or packed for the call.
  const double cell = keys_packed ? static_cast<double>(pack_element_bytes(call_k.format)) * (a.dk + a.dv) : raw_cell;
  return (runs.tiles_read * kTileKeys * cell + runs.cells_gathered * raw_cell) * kv_heads;
}

Status Session::Impl::attend(const AttendCall& c) {
  LACUNA_CHECK(check_inputs(c));
  LACUNA_CHECK(check_written("out", c.out, c.q.heads(), c.q.tokens(), c.v.dim()));
  if (c.q.tokens() == 0) return {};
  pass.begin(c.layer, std::chrono::steady_clock::now());
  const Status done = attend_call(c);
  const double seconds = pass.end(std::chrono::steady_clock::now());
  const bool decode_call = phase == &decode || phase == &windowed_decode;
  if (c.counted) (decode_call ? decode : prefill).report.pass_seconds += seconds;
  return done;
}

Status Session::Impl::attend_call(const AttendCall& c) {
  check_profiles(c);
  if (!unfit.empty()) note = unfit;
  MaskEntry& mask = mask_entry(c);
  op::Attend::Args args = base_args(c, mask);
  if (!is_quantised(args.k_type) && !is_quantised(args.v_type)) {
    args.packed_k = packed_keys(c);
    args.packed_v = packed_values(c);
  }
  // Where the model has a window of its own there is little to leave out, and rows that lost nothing would thin
  // out the mean of those that did: dense, and counted apart.
  const bool apart = !c.plan && !options.windowed && windowed(c, mask);
  phase = apart ? &(mask.decode ? windowed_decode : windowed_prefill) : &(mask.decode ? decode : prefill);
  scratch_phase = {};
  side = nullptr;
  if (!c.counted) phase = &scratch_phase;
  if (drawn_now()) {
    patterns->announce(prompt_tokens);
    patterns->choose_layers(n_layers, windowed_layers);
  }

  // Plans first: the common case, nothing left out anywhere, is one kernel call for all rows.
  bool sparse = false;
  plans.clear();
  const std::vector<Segment>* segments = &mask.visible.segments();
  if (calibrator && c.counted) LACUNA_CHECK(observe(c, mask, args, apart));
  chosen.clear();
  heads = nullptr;
  if (c.plan) {
    auto of = take_plans(c, mask, args);
    if (!of.ok()) return of.error();
    segments = of.value();
    sparse = std::any_of(plans.begin(), plans.end(), [](const Plan& p) { return !is_dense(p); });
  } else if (!apart && !calibrator && c.counted && unfit.empty() && method->card().slug != "dense") {
    if (contract) {
      const Steered steered(*this);
      choose_heads(c, mask);
    }
    for (const auto& s : *segments) {
      const Method* by = &method_now();
      if (chooser) {
        chosen.push_back(choose(c, mask, s));
        const Chosen& last = chosen.back();
        if (last.choice.candidate < 0) {
          plans.push_back(dense_plan(""));
          continue;
        }
        by = candidates[last.call.phase == Phase::decode][static_cast<std::size_t>(last.choice.candidate)].get();
      }
      if (heads && heads->all_dense && !heads->peek) {
        plans.push_back(dense_plan(""));
        continue;
      }
      std::optional<Steered> steered;
      if (heads && heads->all_dense) steered.emplace(*this);  // a plan that is made to be peeked at
      auto p = plan(*by, c, mask, s, args);
      steered.reset();
      if (!p.ok()) return p.error();
      if (!p.value().why.empty()) note = p.value().why;
      LACUNA_CHECK(check_plan(p.value(), {args.hq, s.rows(), s.n_keys, 0}, args.hkv, args.n_cells));
      sparse = sparse || !is_dense(p.value());
      plans.push_back(std::move(p.value()));
    }
  }

  if (c.plan_number) *c.plan_number = sparse ? number_of(plans) : kDensePlan;

  PhaseReport& r = phase->report;
  ++r.calls;
  const double allowed_pairs = mask.allowed_pairs * static_cast<double>(args.hq);
  r.allowed_pairs += allowed_pairs;
  if (!sparse) {
    const Timed timed(*this, Verb::attend);
    args.runs = mask.dense.view();
    args.lse = c.lse;
    LACUNA_CHECK(execute(c, args));
    r.attended_pairs += allowed_pairs;
    r.kv_bytes += kv_bytes(args, mask.dense);
    if (drawn_now()) patterns->count_heads(c.layer, args.hq, mask.allowed_pairs, nullptr);
    if (options.audit != Audit::off) audit_lossless(c, mask, args);
    if (certificate) certify_lossless(c, mask, c.counted && !apart);
    for (const Chosen& x : chosen) tell_chooser(x, {});
    return {};
  }
  for (std::size_t i = 0; i < segments->size(); ++i) {
    const auto outcome = attend_segment(c, mask, (*segments)[i], plans[i], args, chooser && chosen[i].choice.trial);
    if (!outcome.ok()) return outcome.error();
    if (chooser) tell_chooser(chosen[i], outcome.value());
  }
  return {};
}

Result<Session::Impl::Outcome> Session::Impl::attend_segment(const AttendCall& c, const MaskEntry& mask, const Segment& s,
                                                             const Plan& plan, const op::Attend::Args& whole, bool trial) {
  op::Attend::Args args = rows_of(whole, s.row_begin, s.row_end);
  const Plan* run = &plan;
  Plan guarded;
  if (heads) {
    const Steered steered(*this);
    run = &(guarded = with_dense_heads(plan, args.hq));
  }
  const bool keep_lse = c.lse || options.audit != Audit::off;
  if (keep_lse) args.lse = lse.grow_as<float>(static_cast<std::size_t>(args.hq) * args.n_rows);
  const auto lower = [&] {
    const Timed timed(*this, Verb::attend);
    lower_plan(*run, mask.visible, s,
               {.q_heads = args.hq, .kv_heads = args.hkv, .block_q = block_q_of(*run, kBlockQ), .gather = !args.bias}, lowered);
  };
  lower();
  if (Plan wider; certificate && certify(c, mask, s, *run, args, wider)) {
    run = &(guarded = std::move(wider));
    const double before = lowered.attended_pairs * (args.hq / lowered.heads);
    lower();
    certificate->pairs(0, lowered.attended_pairs * (args.hq / lowered.heads) - before);
  }
  {
    const Timed timed(*this, Verb::attend);
    args.runs = lowered.view();
    args.pv_skip = pv_skip_of(*run);
    LACUNA_CHECK(execute(c, args));
  }
  phase->report.attended_pairs += lowered.attended_pairs * (args.hq / lowered.heads);
  phase->report.kv_bytes += kv_bytes(args, lowered);
  if (c.lse)
    for (int h = 0; h < args.hq; ++h)
      std::memcpy(c.lse + static_cast<std::size_t>(h) * c.q.tokens() + s.row_begin,
                  args.lse + static_cast<std::size_t>(h) * args.n_rows, sizeof(float) * args.n_rows);
  double allowed = 0;
  for (std::int32_t i = s.row_begin; i < s.row_end; ++i) allowed += static_cast<double>(mask.visible.visible_keys(i));
  Outcome outcome{.density = allowed > 0 ? lowered.attended_pairs / (allowed * lowered.heads) : 1.0};
  outcome.all_kept = lowered.attended_pairs == allowed * lowered.heads && !args.pv_skip;
  if (drawn_now()) patterns->count_heads(c.layer, args.hq, allowed, &lowered);
  if (options.audit != Audit::off) {
    const Timed timed(*this, Verb::account);
    draw_rows(s, trial);
    LACUNA_CHECK(audit_segment(c, mask, s, args, outcome));
  }
  if (heads) {
    const Steered steered(*this);
    tell_contract(lowered, args.hq, allowed, false);
    if (heads->peek) LACUNA_CHECK(peek(c, mask, s, plan, args));
  }
  return outcome;
}

void* Session::Impl::scratch(int slot, std::size_t bytes) {
  if (slot >= static_cast<int>(slots.size())) slots.resize(static_cast<std::size_t>(slot) + 1);
  return slots[static_cast<std::size_t>(slot)].grow(bytes + 64);
}

void Session::Impl::run_op(const char* name, const void* args) {
  const auto run = [&]<class Op>(const kernel::KernelList<Op>& list) {
    if (std::strcmp(name, Op::kName) != 0) return;
    const auto& a = *static_cast<const typename Op::Args*>(args);
    if (const auto* k = pick(list, a, have, parallel->workers())) run_kernel(*k, a, *parallel, workspace);
  };
  run(kernel::strided_scores_list);
  run(kernel::page_scores_list);
  run(kernel::label_scores_list);
  run(kernel::int4_scores_list);
  run(kernel::int8_scores_list);
  run(kernel::keep_mass_list);
  run(kernel::top_weights_list);
  run(kernel::exact_mass_list);
  run(kernel::line_sums_list);
  run(kernel::segment_mass_list);
  run(kernel::alike_list);
  run(kernel::range_sums_list);
  run(kernel::pack_list);
  run(kernel::attend_maxima_list);
}

namespace {

// What a call needs but the machine has not becomes an error.
template <class F>
auto within_memory(const AttendCall& call, const F& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::length_error&) {  // what vectors throw for sizes beyond any memory
    return Error{ErrorCode::out_of_memory, fmt::format("an attention call of {} rows x {} cells is too large",
                                                       call.q.tokens(), call.k.tokens())};
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::out_of_memory, "out of memory in an attention call; use a shorter context or fewer slots"};
  }
}

}  // namespace

Status Session::attend(const AttendCall& call) {
  return within_memory(call, [&] { return impl_->attend(call); });
}

Result<std::vector<std::int32_t>> Session::plan(const AttendCall& call) {
  return within_memory(call, [&] { return impl_->plan_words(call); });
}

Status Session::attend_grad(const AttendGradCall& call) {
  return within_memory(call.forward, [&] { return impl_->attend_grad(call); });
}

const std::string& Session::unfit() const { return impl_->unfit; }

std::size_t Session::own_bytes() const {
  const Impl& s = *impl_;
  std::size_t sum = s.workspace.bytes() + s.own_k.bytes() + s.own_v.bytes() + s.ordered.bytes() + s.lse.bytes() + s.own_side.bytes().sum();
  for (const auto& b : s.slots) sum += b.bytes();
  return sum;
}

}  // namespace lacuna
