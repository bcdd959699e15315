# SPDX-License-Identifier: Apache-2.0
# lacuna_write_wgmma(FILE N...): writes the tensor-core instructions of sums with N columns. Each names all its
# N / 2 registers one by one, which C++ cannot spell for a number that is a template argument.
#
#   Wgmma<N, T>::scores(sum, a, b, add)     sum[64][N] (+)= a[64][16] b[N][16]^T   both in shared memory
#   Wgmma<N, T>::values(sum, a, b)          sum[64][N] += a[64][16] b[16][N]       a in registers
function(lacuna_write_wgmma file)
  set(text "// Written by wgmma.cmake.\n#pragma once\n")
  string(APPEND text "#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n#include <cstdint>\n")
  string(APPEND text "namespace lacuna::kernel::cuda::sm90a {\ntemplate <int N, class T> struct Wgmma;\n")
  foreach(n IN LISTS ARGN)
    math(EXPR count "${n} / 2")
    math(EXPR last "${count} - 1")
    set(places)
    set(sums)
    foreach(i RANGE ${last})
      list(APPEND places "%${i}")
      list(APPEND sums "\"+f\"(sum[${i}])")
    endforeach()
    list(JOIN places ", " places)
    list(JOIN sums ", " sums)
    foreach(k RANGE 0 5)
      math(EXPR p${k} "${count} + ${k}")
    endforeach()
    foreach(type IN ITEMS __nv_bfloat16:bf16 __half:f16)
      string(REPLACE ":" ";" type "${type}")
      list(GET type 0 name)
      list(GET type 1 ptx)
      set(op "wgmma.mma_async.sync.aligned.m64n${n}k16.f32.${ptx}.${ptx} {${places}}")
      string(APPEND text "template <> struct Wgmma<${n}, ${name}> {\n  static __device__ __forceinline__ void "
        "scores(float (&sum)[${count}], std::uint64_t a, std::uint64_t b, int add) {\n"
        "    asm volatile(\"{\\n.reg .pred add;\\nsetp.ne.b32 add, %${p2}, 0;\\n"
        "${op}, %${p0}, %${p1}, add, 1, 1, 0, 0;\\n}\"\n"
        "      : ${sums} : \"l\"(a), \"l\"(b), \"r\"(add));\n  }\n"
        "  static __device__ __forceinline__ void "
        "values(float (&sum)[${count}], const std::uint32_t* a, std::uint64_t b) {\n"
        "    asm volatile(\"{\\n.reg .pred add;\\nsetp.ne.b32 add, 1, 0;\\n"
        "${op}, {%${p0}, %${p1}, %${p2}, %${p3}}, %${p4}, add, 1, 1, 1;\\n}\"\n"
        "      : ${sums} : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3]), \"l\"(b));\n  }\n};\n")
    endforeach()
  endforeach()
  string(APPEND text "}  // namespace lacuna::kernel::cuda::sm90a\n")
  file(CONFIGURE OUTPUT ${file} CONTENT "${text}" @ONLY)  # touches the file only when the text is new
endfunction()
