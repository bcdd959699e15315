// SPDX-License-Identifier: Apache-2.0
#include "engine/packed_tensor.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include <fmt/format.h>

namespace lacuna {

PackFormat choose_format(Features have, Dtype kv, Precision precision, const kernel::Kernel<op::Attend>* forced) {
  if (forced && forced->pack != PackFormat::none) return format_for(*forced, kv);
  if (!(have & kAvx2)) return PackFormat::none;
  if (precision == Precision::fast && (have & kAvx512Bf16)) return PackFormat::pair16_bf16;
  return kv == Dtype::f16 ? PackFormat::lane16_f16 : PackFormat::lane16_f32;
}

op::Pack::Args pack_args(op::Pack::Role role, const Tensor& raw, const PackedView& to) {
  op::Pack::Args a;
  a.role = role;
  a.dtype = raw.dtype;
  a.raw = raw.data;
  a.head = raw.stride[1];
  a.cell = raw.stride[2];
  a.format = to.format;
  a.heads = to.heads;
  a.dim = to.dim;
  a.packed = const_cast<void*>(to.data);
  return a;
}

void pack_cells(Features have, op::Pack::Args args, ParallelFor* parallel) {
  constexpr std::int64_t kSlice = 512;  // cells per task; a whole number of tiles
  const auto* k = pick(kernel::pack_list, args, have, 1);
  if (!k || args.n <= 0) return;
  if (!parallel || args.n <= kSlice || args.from || args.to) {
    k->run(args, 0, 0, 1, nullptr, nullptr);
    return;
  }
  const std::int64_t first = args.first, end = first + args.n, base = first / kSlice * kSlice;
  parallel->each(static_cast<int>((end - base + kSlice - 1) / kSlice), [&](int i, int) {
    op::Pack::Args part = args;
    part.first = std::max(first, base + i * kSlice);
    part.n = std::min(end, base + (i + 1) * kSlice) - part.first;
    k->run(part, 0, 0, 1, nullptr, nullptr);
  });
}

PackedTensor::PackedTensor(Role role, Dtype dtype, std::int64_t cells, int heads, int dim, Precision precision,
                           const std::string& machine, const std::string& kernel, const SideRequest& side)
    : impl_(std::make_unique<Impl>()) {
  bool known = true;
  impl_->role = role;
  impl_->dtype = dtype;
  impl_->have = machine.empty() ? detect_features() : mask_features(detect_features(), machine.c_str(), &known);
  // A packed copy would take up to four times what the quantised tensor does.
  const PackFormat format = is_quantised(dtype) ? PackFormat::none : choose_format(impl_->have, dtype, precision, find_attend(kernel));
  impl_->view = {nullptr, format, heads, dim, cells};
  if (side && role == Role::key) impl_->side.open(*side, dtype, cells, heads, dim);
  if (impl_->view.format == PackFormat::none) return;
  impl_->used_bytes = impl_->view.block_bytes() * static_cast<std::size_t>(tiles_of(cells) * heads);
  impl_->view.data = impl_->storage.grow(impl_->used_bytes);
  clear();
}

PackedTensor::~PackedTensor() = default;

void PackedTensor::clear() {
  if (impl_->view.data) std::memset(const_cast<void*>(impl_->view.data), 0, impl_->used_bytes);
  impl_->side.clear();
}

std::size_t PackedTensor::bytes() const { return bytes_by_kind().sum(); }

SideBytes PackedTensor::bytes_by_kind() const {
  SideBytes b = impl_->side.bytes();
  b.packed = impl_->used_bytes;
  return b;
}

namespace {

op::Pack::Role op_role(PackedTensor::Role role) {
  return role == PackedTensor::Role::key ? op::Pack::Role::key : op::Pack::Role::value;
}

}  // namespace

void PackedTensor::write(const Tensor& raw, std::int64_t first, std::int64_t n, ParallelFor* parallel) {
  first = std::clamp<std::int64_t>(first, 0, impl_->view.cells);
  n = std::min(n, impl_->view.cells - first);
  if (n <= 0) return;
  if (impl_->view.format != PackFormat::none) {
    op::Pack::Args a = pack_args(op_role(impl_->role), raw, impl_->view);
    a.first = first;
    a.n = n;
    pack_cells(impl_->have, a, parallel);
  }
  if (impl_->side.empty()) return;
  op::SideWrite::Args a = side_args(raw, impl_->side.view());
  a.first = first;
  a.n = n;
  write_side(impl_->have, a, parallel);
}

Status PackedTensor::write_cells(const Tensor& raw, const std::int64_t* cells, std::int64_t n) {
  thread_local std::vector<std::int32_t> list;
  list.clear();
  for (std::int64_t i = 0; i < n; ++i) {
    if (cells[i] < 0 || cells[i] >= impl_->view.cells)
      return bad_argument(fmt::format("cell {} of a cache write: got {}, need 0..{}", i, cells[i], impl_->view.cells - 1));
    list.push_back(static_cast<std::int32_t>(cells[i]));
  }
  if (impl_->view.format != PackFormat::none) {
    op::Pack::Args a = pack_args(op_role(impl_->role), raw, impl_->view);
    a.from = a.to = list.data();
    a.n = n;
    pack_cells(impl_->have, a, nullptr);
  }
  if (impl_->side.empty()) return {};
  std::sort(list.begin(), list.end());  // each page and block once
  op::SideWrite::Args a = side_args(raw, impl_->side.view());
  a.list = list.data();
  a.n = n;
  write_side(impl_->have, a, nullptr);
  return {};
}

std::string PackedTensor::verify(const Tensor& raw) const {
  const PackedView& kept = impl_->view;
  if (raw.tokens() != kept.cells || raw.heads() != kept.heads || raw.dim() != kept.dim || raw.dtype != impl_->dtype)
    return "the raw tensor is of another shape";
  Buffer storage;
  PackedView anew = kept;
  if (kept.data) {
    anew.data = std::memset(storage.grow(impl_->used_bytes), 0, impl_->used_bytes);
    op::Pack::Args a = pack_args(op_role(impl_->role), raw, anew);
    a.n = kept.cells;
    pack_cells(impl_->have, a, nullptr);
  }
  for (std::int64_t t = 0; kept.data && t < tiles_of(kept.cells); ++t)
    for (int h = 0; h < kept.heads; ++h)
      if (std::memcmp(kept.block(t, h), anew.block(t, h), kept.block_bytes()) != 0)
        return fmt::format("packed: cells {} to {}, head {}", t * kTileKeys, (t + 1) * kTileKeys - 1, h);
  SideStore side = impl_->side.like();
  if (side.empty()) return "";
  op::SideWrite::Args a = side_args(raw, side.view());
  a.n = kept.cells;
  write_side(impl_->have, a, nullptr);
  return first_difference(impl_->side.view(), side.view());
}

}  // namespace lacuna
