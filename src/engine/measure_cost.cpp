// SPDX-License-Identifier: Apache-2.0
#include "engine/measure_cost.h"

#include <algorithm>
#include <filesystem>

#include "engine/made_up.h"
#include "method/profile.h"
#include "op/context.h"

namespace lacuna {
namespace {

constexpr int kRuns = 3;  // after one that warms up; the median counts
// Keys and rows between which costs are taken to grow evenly.
constexpr std::int64_t kManyKeys = 4096, kFewKeys = 2048, kManyRows = 512, kFewRows = 128;
constexpr std::int64_t kDecodeKeys = 16384, kFewDecodeKeys = 4096;
// Heads beyond this cost what these cost: more would only take longer.
constexpr int kMostKvHeads = 4;
// The last of many layers: some methods leave the first ones dense.
constexpr int kLayers = 64;

// Median seconds and pairs of one call.
struct Taken {
  double select = 0, attend = 0, kept = 0, allowed = 0;
};

// Made-up tensors of a shape, with as many rows and keys as any measurement takes.
class Bench {
 public:
  Bench(const CallShape& shape, const Options& like, std::int64_t rows, std::int64_t keys) : like_(like), rows_(rows), keys_(keys) {
    const int group = shape.hq / shape.hkv;
    hkv_ = std::min(shape.hkv, kMostKvHeads);
    hq_ = hkv_ * group;
    share_ = static_cast<double>(shape.hq) / hq_;
    dk_ = shape.dk;
    dv_ = shape.dv;
    k_type_ = shape.k_type;
    v_type_ = shape.v_type;
    std::vector<float> k;
    make_up(hq_, hkv_, rows, keys, dk_, 1, q_, k);
    Rng rng(2);
    std::vector<float> v(static_cast<std::size_t>(keys) * hkv_ * dv_);
    for (float& x : v) x = static_cast<float>(rng.normal());
    k_ = as_type(k, k_type_);
    v_ = as_type(v, v_type_);
    out_.resize(static_cast<std::size_t>(rows) * hq_ * dv_);
  }

  // The last `rows` rows over the last `keys` keys, as `spec` does them; seconds are for all heads.
  Result<Taken> run(const std::string& spec, std::int64_t rows, std::int64_t keys) {
    Options options = like_;
    options.method = spec;
    options.audit = Audit::off;
    options.calibrate = false;
    auto opened = Session::open(options);
    if (!opened.ok()) return opened.error();
    Session& session = *opened.value();
    // What a host keeps beside its cache is not paid for by a call.
    PackedTensor packed_k(PackedTensor::Role::key, k_type_, keys, hkv_, dk_, like_.precision, like_.machine, like_.kernel, session.side(kLayers - 1));
    PackedTensor packed_v(PackedTensor::Role::value, v_type_, keys, hkv_, dv_, like_.precision, like_.machine, like_.kernel);
    AttendCall call;
    call.layer = kLayers - 1;
    call.q = token_major(q_.data() + (rows_ - rows) * hq_ * dk_, Dtype::f32, 1, hq_, rows, dk_);
    call.k = token_major(k_.data() + bytes_of(k_type_, (keys_ - keys) * hkv_ * dk_), k_type_, 1, hkv_, keys, dk_);
    call.v = token_major(v_.data() + bytes_of(v_type_, (keys_ - keys) * hkv_ * dv_), v_type_, 1, hkv_, keys, dv_);
    call.out = token_major(out_.data(), Dtype::f32, 1, hq_, rows, dv_);
    packed_k.write(call.k, 0, keys, like_.parallel);
    packed_v.write(call.v, 0, keys, like_.parallel);
    call.packed_k = &packed_k;
    call.packed_v = &packed_v;
    session.announce(kLayers, keys);
    std::vector<double> select, attend;
    Taken t;
    for (int i = 0; i <= kRuns; ++i) {
      session.reset_report();
      LACUNA_CHECK(session.attend(call));
      const Report report = session.report();
      const PhaseReport& r = rows == 1 ? report.decode : report.prefill;
      t.kept = r.attended_pairs * share_;
      t.allowed = r.allowed_pairs * share_;
      if (i == 0) continue;
      select.push_back((r.seconds[static_cast<int>(Verb::estimate)] + r.seconds[static_cast<int>(Verb::budget)] +
                        r.seconds[static_cast<int>(Verb::correct)]) * share_);
      attend.push_back(r.seconds[static_cast<int>(Verb::attend)] * share_);
    }
    t.select = median(select);
    t.attend = median(attend);
    return t;
  }

 private:
  static double median(std::vector<double>& x) {
    std::nth_element(x.begin(), x.begin() + kRuns / 2, x.end());
    return x[kRuns / 2];
  }
  Options like_;
  std::int64_t rows_, keys_;
  int hq_ = 1, hkv_ = 1, dk_ = 0, dv_ = 0;
  double share_ = 1;
  Dtype k_type_ = Dtype::f16, v_type_ = Dtype::f16;
  std::vector<float> q_, out_;
  std::vector<unsigned char> k_, v_;
};

double positive(double x) { return std::max(x, 0.0); }

// Two of the three numbers may be below what can be told from noise: then they are 0.
SelectCost fit(double many, double few_rows, double few_keys) {
  SelectCost s;
  s.pair = positive((many - few_rows) / static_cast<double>((kManyRows - kFewRows) * kManyKeys));
  s.key = positive((many - few_keys) / static_cast<double>(kManyKeys - kFewKeys) - s.pair * kManyRows);
  s.call = positive(many - s.key * kManyKeys - s.pair * kManyRows * kManyKeys);
  return s;
}

Status measure_prefill(Bench& bench, const std::vector<std::string>& specs, PhaseCost& to) {
  const auto dense = bench.run("dense", kManyRows, kManyKeys);
  if (!dense.ok()) return dense.error();
  to.pair = dense.value().attend / dense.value().allowed;
  for (const auto& spec : specs) {
    const auto many = bench.run(spec, kManyRows, kManyKeys), few_rows = bench.run(spec, kFewRows, kManyKeys),
               few_keys = bench.run(spec, kManyRows, kFewKeys);
    for (const auto* r : {&many, &few_rows, &few_keys})
      if (!r->ok()) return r->error();
    to.candidates.push_back({spec, fit(many.value().select, few_rows.value().select, few_keys.value().select),
                             std::max(to.pair, many.value().attend / many.value().kept)});  // a kept pair is never cheaper
  }
  return {};
}

Status measure_decode(Bench& bench, const std::vector<std::string>& specs, PhaseCost& to) {
  const auto line = [&](double many, double few, double& call, double& key) {
    key = positive((many - few) / static_cast<double>(kDecodeKeys - kFewDecodeKeys));
    call = positive(few - key * static_cast<double>(kFewDecodeKeys));
  };
  const auto many = bench.run("dense", 1, kDecodeKeys), few = bench.run("dense", 1, kFewDecodeKeys);
  if (!many.ok()) return many.error();
  if (!few.ok()) return few.error();
  double key = 0;
  line(many.value().attend, few.value().attend, to.call, key);
  to.pair = key * static_cast<double>(kDecodeKeys) / many.value().allowed;
  for (const auto& spec : specs) {
    const auto all = bench.run(spec, 1, kDecodeKeys), some = bench.run(spec, 1, kFewDecodeKeys);
    if (!all.ok()) return all.error();
    if (!some.ok()) return some.error();
    CandidateCost c{spec, {}, std::max(to.pair, positive(all.value().attend - to.call) / all.value().kept)};
    line(all.value().select, some.value().select, c.select.call, c.select.key);
    to.candidates.push_back(std::move(c));
  }
  return {};
}

}  // namespace

Result<CostModel> measure_costs(const CallShape& shape, const Options& like, const std::vector<std::string>& prefill,
                                const std::vector<std::string>& decode) {
  CostModel costs;
  {
    Bench bench(shape, like, kManyRows, kManyKeys);
    LACUNA_CHECK(measure_prefill(bench, prefill, costs.prefill));
  }
  Bench bench(shape, like, 1, kDecodeKeys);
  LACUNA_CHECK(measure_decode(bench, decode, costs.decode));
  return costs;
}

Result<CostModel> costs_of_machine(const CallShape& shape, const Options& like, const std::vector<std::string>& prefill,
                                   const std::vector<std::string>& decode) {
  constexpr std::size_t kLargestFile = std::size_t{1} << 16;
  const std::string path = cost_file(shape, prefill, decode);
  if (!path.empty())
    if (const auto text = read_small_file(path, kLargestFile); text.ok())
      if (auto costs = parse_costs(text.value(), shape, prefill, decode); costs.ok()) return costs;
  auto costs = measure_costs(shape, like, prefill, decode);
  if (costs.ok() && !path.empty()) {
    std::error_code bad;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), bad);
    (void)write_whole(path, cost_text(costs.value(), shape));
  }
  return costs;
}

}  // namespace lacuna
