// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What this processor can do, as bits that kernel lists ask for.
#pragma once

#include <cstdint>

namespace lacuna {

using Features = std::uint32_t;
constexpr Features kAvx2 = 1u << 0;        // with FMA and F16C
constexpr Features kAvx512 = 1u << 1;      // F, BW, DQ, VL, CD
constexpr Features kAvx512Bf16 = 1u << 2;
constexpr Features kAvx512Vnni = 1u << 3;
constexpr Features kAvx512Fp16 = 1u << 4;
constexpr Features kAmxBf16 = 1u << 5;     // with AMX-TILE and the kernel's permission to use it
constexpr Features kAmxInt8 = 1u << 6;

// Reads cpuid and asks the operating system for the AMX tiles; cheap after the first call.
Features detect_features();

// Processor cores this process may use, hyper-threads counted once: what "one thread per core" means
// wherever a user says 0.
int usable_cores();

// The features that remain when the machine is told to be a lesser one: "none", "avx2", "avx512",
// "avx512bf16", "amx" (no mask). Unknown names leave all; `known` says which it was.
Features mask_features(Features have, const char* level, bool* known);

}  // namespace lacuna
