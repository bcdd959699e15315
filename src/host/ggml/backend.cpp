// SPDX-License-Identifier: Apache-2.0
#include "host/ggml/backend.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "host/ggml/api.h"
#include "host/ggml/claim.h"
#include "host/ggml/types.h"

namespace lacuna::ggml {
namespace {

// ggml's [channels, tokens, heads, streams] as ours; one stream.
lacuna::Tensor view_of(const Tensor& t, std::int64_t stream) {
  return {static_cast<char*>(t.data) + stream * static_cast<std::int64_t>(t.nb[3]), dtype_of(t.type),
          {1, t.ne[2], t.ne[1], t.ne[0]}, {0, elements_in(t.type, t.nb[2]), elements_in(t.type, t.nb[1]), 1}};
}

float param(const Tensor& op, int i) {
  float x;
  std::memcpy(&x, &op.op_params[i], sizeof x);
  return x;
}

std::int64_t index_at(const Tensor& index, std::int64_t i) {
  return index.type == type_i64 ? static_cast<const std::int64_t*>(index.data)[i]
                                : static_cast<const std::int32_t*>(index.data)[i];
}

// The rotation that a tensor comes from through views alone, or null; and through a matrix that mixes a head's
// channels, as llama.cpp has one before it quantises: then `mixed` says so.
const Tensor* rotation_of(const Tensor* t, bool& mixed) {
  const auto& o = api().ops;
  mixed = false;
  for (int hop = 0; t && hop < 12 && t->op != o.rope; ++hop) {
    const bool passes = t->op == o.view || t->op == o.reshape || t->op == o.permute || t->op == o.cont;
    if (t->op == o.mul_mat && !mixed) {
      mixed = true;
      t = t->src[1];
    } else {
      t = passes ? (t->src[0] ? t->src[0] : t->view_src) : nullptr;
    }
  }
  return t && t->op == o.rope ? t : nullptr;
}

// Parameters of ggml's rotation: 2 = mode, 5 = base. Bit 1 (NeoX) and bit 3 (multi-section) of the mode
// say that pairs lie half a head apart.
Rope rope_of(const Tensor& rotation, bool mixed) {
  constexpr std::int32_t kHalfSplitModes = 2 | 8;
  if (mixed) return {RopeLayout::mixed, static_cast<double>(param(rotation, 5))};
  return {rotation.op_params[2] & kHalfSplitModes ? RopeLayout::half_split : RopeLayout::interleaved,
          static_cast<double>(param(rotation, 5))};
}

// The slope of each head under ALiBi: two geometric sequences, split at the largest power of two.
void alibi_slopes(float max_bias, std::int64_t heads, std::vector<float>& out) {
  const double power = std::exp2(std::floor(std::log2(static_cast<double>(heads))));
  const double first = std::exp2(-max_bias / power), second = std::exp2(-max_bias / 2.0 / power);
  out.resize(static_cast<std::size_t>(heads));
  for (std::int64_t h = 0; h < heads; ++h) {
    const double i = static_cast<double>(h);
    out[static_cast<std::size_t>(h)] = static_cast<float>(i < power ? std::pow(first, i + 1) : std::pow(second, 2 * (i - power) + 1));
  }
}

}  // namespace

std::unique_ptr<Instance> Instance::open(const Config& config, bool own_buffers) {
  std::unique_ptr<Instance> x(new Instance);
  x->config_ = config;
  x->own_buffers_ = own_buffers;
  Options options = config.options;
  options.parallel = &x->threads_;
  auto session = Session::open(options);
  if (!session.ok()) {
    std::fprintf(stderr, "lacuna: %s; llama.cpp runs without Lacuna\n", session.error().what.c_str());
    return nullptr;
  }
  x->session_ = std::move(session.value());
  return x;
}

Instance::~Instance() {
  if (cpu_) api().backend_free(cpu_);
}

void Instance::announce(int n_layers, std::int64_t prompt_tokens) {
  n_layers_ = n_layers;
  prompt_tokens_ = prompt_tokens;
  session_->announce(n_layers_, prompt_tokens_);
}

void Instance::reset_report() { session_->reset_report(); }

// A graph begins when something happens to a cache tensor that happened to it in this graph already.
// A cache that two layers share makes that too often, which costs a look at the mask and no more.
void Instance::begin_graph() {
  for (auto* c : touched_) {
    c->was_written = c->was_attended = false;
    c->written.clear();
  }
  touched_.clear();
  masks_.clear();
  positions_.clear();
  session_->new_graph();
  ++graphs_;
}

bool Instance::event(CacheTensor& cache, bool CacheTensor::* flag) {
  const bool again = cache.*flag;
  if (again || graphs_ == 0) begin_graph();
  if (!cache.was_written && !cache.was_attended) touched_.push_back(&cache);
  cache.*flag = true;
  return again;
}

// No exception may pass through ggml's C code.
int Instance::compute(Graph* graph) {
  try {
    const int code = run(graph);
    if (code == status_success && counted_) log_now_and_then();
    return code;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "lacuna: %s in an attention graph; use a smaller context (-c)\n", e.what());
    return status_failed;
  }
}

int Instance::run(Graph* graph) {
  const Api& g = api();
  const int n = g.graph_n_nodes(graph);
  for (int i = 0; i < n; ++i) {
    const Tensor& op = *g.graph_node(graph, i);
    if (!(op.flags & kFlagCompute)) continue;
    const char* why = nullptr;
    lacuna::Status status;
    switch (claim_of(op, own_buffers_, &why)) {
      case Claim::nothing: break;
      case Claim::attend: status = attend(op); break;
      case Claim::write_rows: status = write_rows(op); break;
      case Claim::rotate: status = rotate(op); break;
      case Claim::none:
        status = unsupported(std::string("operation ") + g.op_name(op.op) + " was not claimed" + (why ? std::string(": ") + why : ""));
    }
    if (!status.ok()) {
      std::fprintf(stderr, "lacuna: %s\n", status.error().what.c_str());
      return status_failed;
    }
  }
  return status_success;
}

lacuna::Status Instance::write_rows(const Tensor& op) {
  const Tensor &from = *op.src[0], &index = *op.src[1];
  CacheTensor& cache = *cache_of(op);
  event(cache, &CacheTensor::was_written);
  const std::int64_t n = from.ne[1], rows = cache.cells * static_cast<std::int64_t>(cache.streams.size());
  cache.written.resize(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t row = index_at(index, i);
    if (row < 0 || row >= rows)
      return bad_argument("a cache write to cell " + std::to_string(row) + ": need 0.." + std::to_string(rows - 1));
    cache.written[static_cast<std::size_t>(i)] = row;
  }
  const FromFloat quantise = quantiser(cache.type);  // null for a type that needs none
  constexpr std::int64_t kRows = 32;  // per task: enough to be worth a thread's waking
  threads_.each(static_cast<int>((n + kRows - 1) / kRows), [&](int task, int) {
    for (std::int64_t i = task * kRows; i < std::min(n, (task + 1) * kRows); ++i) {
      const auto* in = reinterpret_cast<const float*>(static_cast<const char*>(from.data) + static_cast<std::size_t>(i) * from.nb[1]);
      char* out = cache.data + static_cast<std::size_t>(cache.written[static_cast<std::size_t>(i)]) * cache.row_bytes;
      if (cache.type == type_f32) std::memcpy(out, in, static_cast<std::size_t>(cache.row_elements) * 4);
      else if (cache.type == type_f16) api().fp32_to_fp16_row(in, reinterpret_cast<std::uint16_t*>(out), cache.row_elements);
      else if (cache.type == type_bf16) api().fp32_to_bf16_row(in, reinterpret_cast<std::uint16_t*>(out), cache.row_elements);
      else quantise(in, out, cache.row_elements);
    }
  });
  learn_positions(op, cache);

  // The side copies, stream by stream: rows of one stream come in one run.
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t stream = cache.written[static_cast<std::size_t>(i)] / cache.cells, base = stream * cache.cells;
    std::int64_t end = i + 1;
    bool in_order = true;
    for (; end < n && cache.written[static_cast<std::size_t>(end)] / cache.cells == stream; ++end)
      in_order = in_order && cache.written[static_cast<std::size_t>(end)] == cache.written[static_cast<std::size_t>(end) - 1] + 1;
    Stream& s = cache.streams[static_cast<std::size_t>(stream)];
    if (!s.packed) {
      for (std::int64_t j = i; j < end; ++j) {
        const std::int64_t cell = cache.written[static_cast<std::size_t>(j)] - base;
        s.mark(cell, cell + 1);
      }
    } else if (!cache.foreign) {
      const lacuna::Tensor raw = cache.raw(static_cast<std::size_t>(stream));
      if (in_order) {
        s.packed->write(raw, cache.written[static_cast<std::size_t>(i)] - base, end - i, &threads_);
      } else {
        std::vector<std::int64_t> cells(cache.written.begin() + i, cache.written.begin() + end);
        for (auto& c : cells) c -= base;
        LACUNA_CHECK(s.packed->write_cells(raw, cells.data(), static_cast<std::int64_t>(cells.size())));
      }
    }
    i = end;
  }
  return {};
}

// Follows the keys back to their rotation: its second source holds the rows' positions. Read at the
// first layer that meets it and kept for the graph: later its memory may serve something else.
void Instance::learn_positions(const Tensor& op, CacheTensor& cache) {
  bool mixed = false;
  const Tensor* t = rotation_of(op.src[0], mixed);
  const std::vector<std::int32_t>* known = nullptr;
  if (t) cache.rope = rope_of(*t, mixed);
  if (t && t->src[1]) {
    const Tensor& pos = *t->src[1];
    auto [it, fresh] = positions_.try_emplace(&pos);
    const auto n = static_cast<std::size_t>(op.src[0]->ne[1]);
    const bool readable = pos.type == type_i32 && pos.data && (pos.flags & kFlagInput) &&
                          static_cast<std::size_t>(pos.ne[0]) == n;  // M-RoPE has four per row: unknown
    if (fresh && readable) {
      const auto* p = static_cast<const std::int32_t*>(pos.data);
      it->second.assign(p, p + n);
    }
    if (it->second.size() == n) known = &it->second;
  }
  if (!known && cache.streams[0].cell_pos.empty()) return;
  for (std::size_t i = 0; i < cache.written.size(); ++i) {
    Stream& s = cache.streams[static_cast<std::size_t>(cache.written[i] / cache.cells)];
    if (s.cell_pos.empty()) s.cell_pos.assign(static_cast<std::size_t>(cache.cells), -1);
    s.cell_pos[static_cast<std::size_t>(cache.written[i] % cache.cells)] = known ? (*known)[i] : -1;
  }
}

// A context shift rotates the keys in place, or copies rotated ones back into a quantised cache. ggml's own CPU
// backend computes it, so that the cache holds the same bits as without us; afterwards the side copy is stale and
// positions have moved: to where is known of a rotation, and of a copy only that they did.
lacuna::Status Instance::rotate(const Tensor& op) {
  const Api& g = api();
  if (!cpu_) {
    for (std::size_t i = 0; g.dev_count && g.dev_get && i < g.dev_count() && !cpu_; ++i)
      if (Device* d = g.dev_get(i); g.dev_type(d) == device_cpu) cpu_ = g.dev_init(d, nullptr);
    if (!cpu_) return unsupported("no CPU backend of ggml to rotate the cache; run without --context-shift");
  }
  if (n_threads_ > 0)
    if (auto* set = reinterpret_cast<void (*)(Backend*, int)>(
            g.reg_get_proc_address(g.dev_registry(cpu_->device), "ggml_backend_set_n_threads")))
      set(cpu_, n_threads_);
  const std::size_t bytes = g.graph_overhead_custom(4, false) + 4 * g.tensor_overhead();
  Context* context = g.init({bytes, nullptr, true});
  if (!context) return Error{ErrorCode::out_of_memory, "no memory for a graph of one node"};
  Graph* graph = g.new_graph_custom(context, 4, false);
  g.graph_add_node(graph, const_cast<Tensor*>(&op));
  const int rc = g.graph_compute(cpu_, graph);
  g.free(context);
  if (rc != status_success) return unsupported("ggml could not rotate the cache");

  CacheTensor& cache = *cache_of(op);
  const std::vector<std::vector<std::int32_t>> before = [&] {
    std::vector<std::vector<std::int32_t>> all;
    for (auto& s : cache.streams) all.push_back(s.cell_pos);
    return all;
  }();
  cache.mark_bytes(static_cast<const char*>(op.data), op.nb[3] * static_cast<std::size_t>(op.ne[3] - 1) + op.nb[2] * static_cast<std::size_t>(op.ne[2]));
  const Tensor* shift = op.op == g.ops.rope ? op.src[1] : nullptr;
  if (shift && shift->type == type_i32 && shift->data && shift->ne[0] == op.ne[2] && cache.streams.size() == 1 &&
      !before[0].empty() && op.ne[2] == cache.cells) {
    cache.streams[0].cell_pos = before[0];
    for (std::int64_t c = 0; c < cache.cells; ++c) {
      std::int32_t& pos = cache.streams[0].cell_pos[static_cast<std::size_t>(c)];
      if (pos >= 0) pos = std::max(pos + static_cast<const std::int32_t*>(shift->data)[c], -1);
    }
  }
  return {};
}

// The side copy of one stream, made or brought up to date. Null: this call packs for itself.
const PackedTensor* Instance::side_copy(CacheTensor* cache, const lacuna::Tensor& raw, std::int64_t stream,
                                        PackedTensor::Role role, int layer) {
  if (!cache || cache->foreign || stream < 0 || stream >= static_cast<std::int64_t>(cache->streams.size())) return nullptr;
  Stream& s = cache->streams[static_cast<std::size_t>(stream)];
  const int heads = static_cast<int>(raw.heads()), dim = static_cast<int>(raw.dim());
  if (!s.packed) {
    s.heads = heads;
    s.dim = dim;
    const SideRequest side = config_.side_all ? every_side_kind() : session_->side(layer);
    s.packed = std::make_unique<PackedTensor>(role, raw.dtype, cache->cells, heads, dim, config_.options.precision,
                                              config_.options.machine, config_.options.kernel, side);
  } else if (s.heads != heads || s.dim != dim) {
    return nullptr;  // two layers look at one cache in different shapes
  }
  if (s.dirty_begin < s.dirty_end) {
    lacuna::Tensor all = raw;
    all.n[2] = cache->cells;
    s.packed->write(all, s.dirty_begin, s.dirty_end - s.dirty_begin, &threads_);
    s.dirty_begin = s.dirty_end = 0;
  }
  return s.packed.get();
}

lacuna::Status Instance::attend(const Tensor& op) {
  CacheTensor *k = cache_of(*op.src[1]), *v = cache_of(*op.src[2]);
  const int layer = layer_of(whole_of(*op.src[1]).name);
  // Layers come in order: a smaller number begins the next graph, and the last one was seen whole.
  if (layer <= last_layer_ && layers_seen_ > n_layers_) {
    n_layers_ = layers_seen_;
    session_->announce(n_layers_, prompt_tokens_);
  }
  last_layer_ = layer;
  layers_seen_ = std::max(layers_seen_, layer + 1);
  if (k) event(*k, &CacheTensor::was_attended);
  else begin_graph();  // no cache tells graphs apart: look at every mask anew
  if (const Tensor* mask = op.src[3]) {
    // A mask computed inside the graph may take the memory of an earlier one.
    auto [it, fresh] = masks_.try_emplace(mask->data, mask);
    if (!fresh && it->second != mask) {
      session_->new_graph();
      it->second = mask;
    }
  }
  // llama.cpp warms up with a first graph of two tokens; a real prompt that short loses two rows.
  const std::int64_t rows = op.src[0]->ne[1] * op.src[0]->ne[3];
  counted_ = graphs_ > 1 || rows > 2;
  for (std::int64_t s = 0; s < op.src[0]->ne[3]; ++s) LACUNA_CHECK(attend_stream(op, s, k, v));
  return {};
}

lacuna::Status Instance::attend_stream(const Tensor& op, std::int64_t s, CacheTensor* k, CacheTensor* v) {
  const Tensor &q = *op.src[0], *mask = op.src[3];
  AttendCall call;
  call.layer = std::max(layer_of(whole_of(*op.src[1]).name), 0);
  call.q = view_of(q, s);
  call.k = view_of(*op.src[1], s);
  call.v = view_of(*op.src[2], s);
  const std::int64_t hq = q.ne[2], nq = q.ne[1], dv = op.ne[0];
  call.out = token_major(static_cast<char*>(op.data) + s * static_cast<std::int64_t>(op.nb[3]), Dtype::f32, 1, hq, nq, dv);
  call.scale = param(op, 0);
  call.softcap = param(op, 2);
  if (op.src[4]) call.sinks = static_cast<const float*>(op.src[4]->data);
  if (const float max_bias = param(op, 1); max_bias > 0) {
    alibi_slopes(max_bias, hq, slopes_);
    call.slopes = slopes_.data();
  }
  call.counted = counted_;
  if (k) call.rope = k->rope;
  bool mixed = false;
  if (const Tensor* t = call.rope.layout == RopeLayout::unknown ? rotation_of(&q, mixed) : nullptr) call.rope = rope_of(*t, mixed);

  // Which stream of the cache this is, by address.
  const auto stream_of = [](const CacheTensor* c, const lacuna::Tensor& t) -> std::int64_t {
    if (!c) return -1;
    const std::ptrdiff_t at = static_cast<char*>(t.data) - c->data;
    const auto stream_bytes = static_cast<std::ptrdiff_t>(c->row_bytes) * c->cells;
    return at >= 0 && at % stream_bytes == 0 && lacuna::bytes_of(t.dtype, t.stride[2]) == static_cast<std::int64_t>(c->row_bytes)
               ? at / stream_bytes : -1;
  };
  const std::int64_t k_stream = stream_of(k, call.k), v_stream = stream_of(v, call.v);
  call.packed_k = side_copy(k, call.k, k_stream, PackedTensor::Role::key, call.layer);
  call.packed_v = side_copy(v, call.v, v_stream, PackedTensor::Role::value, call.layer);

  if (mask) {
    call.mask.data = reinterpret_cast<const std::uint16_t*>(static_cast<const char*>(mask->data) +
                                                            (s % mask->ne[3]) * static_cast<std::int64_t>(mask->nb[3]));
    call.mask.row_stride = static_cast<std::int64_t>(mask->nb[1] / 2);
    if (k_stream >= 0) {
      // Rows come stream by stream, as they were written.
      const auto first = static_cast<std::size_t>(s * nq);
      if (k->written.size() == static_cast<std::size_t>(nq * q.ne[3])) {
        row_cell_.assign(static_cast<std::size_t>(nq), -1);
        for (std::size_t i = 0; i < row_cell_.size(); ++i)
          if (const std::int64_t row = k->written[first + i]; row / k->cells == k_stream)
            row_cell_[i] = static_cast<std::int32_t>(row % k->cells);
        call.mask.row_cell = row_cell_.data();
      }
      const auto& pos = k->streams[static_cast<std::size_t>(k_stream)].cell_pos;
      if (!pos.empty()) call.mask.cell_pos = pos.data();
    }
  }
  LACUNA_CHECK(session_->attend(call));
  if (!told_unfit_ && !session_->unfit().empty()) {
    told_unfit_ = true;
    if (!config_.quiet) std::fprintf(stderr, "lacuna: %s; until then attention is dense\n", session_->unfit().c_str());
  }
  return {};
}

}  // namespace lacuna::ggml
