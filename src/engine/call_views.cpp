// SPDX-License-Identifier: Apache-2.0
// What kernels and methods see of a call: its mask, its keys and values packed, and the side data beside them.
#include <algorithm>

#include <fmt/format.h>

#include "engine/session.h"

namespace lacuna {

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

}  // namespace lacuna
