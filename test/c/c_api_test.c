/* SPDX-License-Identifier: Apache-2.0 */
/* The C interface, used from C: opens, attends, reports, fails with words, closes. */
#include "lacuna/lacuna_c.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int failures = 0;

static void expect(int good, const char* what, int line) {
  if (good) return;
  printf("line %d: not true: %s\n", line, what);
  ++failures;
}
#define EXPECT(x) expect((x) ? 1 : 0, #x, __LINE__)

enum { kRows = 5, kDim = 16 };

static lacuna_tensor rows_of(float* data) {
  lacuna_tensor t = {data, LACUNA_F32, {1, 1, kRows, kDim}, {kRows * kDim, kRows * kDim, kDim, 1}};
  return t;
}

static void attends(void) {
  float q[kRows * kDim], k[kRows * kDim], v[kRows * kDim], out[kRows * kDim], lse[kRows];
  for (int i = 0; i < kRows * kDim; ++i) {
    q[i] = 0.0f; /* equal weights: a causal row is the mean of the values up to it */
    k[i] = (float)i;
    v[i] = (float)(i / kDim);
    out[i] = NAN;
  }
  lacuna_session* s = NULL;
  EXPECT(lacuna_open("dense precision=high threads=2", &s) == LACUNA_OK);
  if (!s) return;
  lacuna_attend_call call;
  memset(&call, 0, sizeof call);
  call.size = sizeof call;
  call.q = rows_of(q);
  call.k = rows_of(k);
  call.v = rows_of(v);
  call.out = rows_of(out);
  call.lse = lse;
  EXPECT(lacuna_attend(s, &call) == LACUNA_OK);
  for (int i = 0; i < kRows; ++i) {
    EXPECT(fabsf(out[i * kDim + 3] - (float)i / 2) < 1e-5f);
    EXPECT(fabsf(lse[i] - logf((float)i + 1)) < 1e-5f);
  }
  const char* report = lacuna_report_json(s);
  EXPECT(report && strstr(report, "\"method\":\"dense\""));
  EXPECT(strcmp(lacuna_last_error(s), "") == 0);
  EXPECT(lacuna_new_graph(s) == LACUNA_OK);
  EXPECT(lacuna_announce(s, 24, 7000) == LACUNA_OK);
  EXPECT(lacuna_announce(s, 0, -1) == LACUNA_OK);
  EXPECT(lacuna_announce(s, -1, 5) == LACUNA_BAD_ARGUMENT);
  EXPECT(strstr(lacuna_last_error(s), "n_layers"));
  EXPECT(lacuna_announce(s, 1, -2) == LACUNA_BAD_ARGUMENT);
  EXPECT(strstr(lacuna_last_error(s), "prompt_tokens"));
  EXPECT(strstr(lacuna_report_json(s), "\"calls\":1"));
  EXPECT(lacuna_reset_report(s) == LACUNA_OK);
  EXPECT(!strstr(lacuna_report_json(s), "\"calls\":1"));

  call.v.n[2] = kRows - 1;
  EXPECT(lacuna_attend(s, &call) == LACUNA_BAD_ARGUMENT);
  EXPECT(strstr(lacuna_last_error(s), "must agree"));
  call.v.n[2] = kRows;
  call.k.dtype = 7;
  EXPECT(lacuna_attend(s, &call) == LACUNA_BAD_ARGUMENT);
  call.k.dtype = LACUNA_Q8_0;
  call.k.stride[2] = 33;
  EXPECT(lacuna_attend(s, &call) == LACUNA_BAD_ARGUMENT);
  EXPECT(strstr(lacuna_last_error(s), "need a multiple of 32"));
  call.k.dtype = LACUNA_F32;
  call.size = 8;
  EXPECT(lacuna_attend(s, &call) == LACUNA_BAD_ARGUMENT);
  EXPECT(lacuna_attend(s, NULL) == LACUNA_BAD_ARGUMENT);
  lacuna_close(s);
}

/* What is announced reaches the method: without the number of layers trianglemix is dense and says so. */
static void announces(void) {
  static float q[600 * kDim], out[600 * kDim];
  lacuna_session* s = NULL;
  EXPECT(lacuna_open("trianglemix:window=50:last_rows=60 precision=high", &s) == LACUNA_OK);
  if (!s) return;
  lacuna_attend_call call;
  memset(&call, 0, sizeof call);
  call.size = sizeof call;
  call.layer = 1;
  call.q = rows_of(q);
  call.q.n[2] = 600;
  call.k = call.v = call.out = call.q;
  call.out.data = out;
  EXPECT(lacuna_attend(s, &call) == LACUNA_OK);
  EXPECT(strstr(lacuna_report_json(s), "number of layers is unknown"));
  EXPECT(lacuna_announce(s, 2, -1) == LACUNA_OK);
  EXPECT(lacuna_attend(s, &call) == LACUNA_OK);
  EXPECT(strstr(lacuna_report_json(s), "end is unknown"));
  EXPECT(lacuna_reset_report(s) == LACUNA_OK);
  EXPECT(lacuna_announce(s, 2, 600) == LACUNA_OK);
  EXPECT(lacuna_attend(s, &call) == LACUNA_OK);
  EXPECT(strstr(lacuna_report_json(s), "\"note\":\"\""));
  lacuna_close(s);
}

static void refuses(const char* text, lacuna_status code, const char* words) {
  lacuna_session* s = (lacuna_session*)&failures;
  EXPECT(lacuna_open(text, &s) == code);
  EXPECT(s == NULL);
  if (!strstr(lacuna_last_error(NULL), words)) {
    printf("'%s': '%s' does not say '%s'\n", text, lacuna_last_error(NULL), words);
    ++failures;
  }
}

int main(void) {
  EXPECT(strlen(lacuna_version()) > 0);
  attends();
  announces();
  lacuna_session* s = NULL;
  EXPECT(lacuna_open(NULL, &s) == LACUNA_OK);
  lacuna_close(s);
  lacuna_close(NULL);
  EXPECT(lacuna_open("precision=high  streamingllm:window=64 audit=full seed=9", &s) == LACUNA_OK);
  lacuna_close(s);
  refuses("densee", LACUNA_UNKNOWN_NAME, "did you mean 'dense'");
  refuses("dense dense", LACUNA_BAD_ARGUMENT, "one method");
  refuses("dense precison=high", LACUNA_UNKNOWN_NAME, "did you mean 'precision'");
  refuses("dense precision=low", LACUNA_BAD_ARGUMENT, "fast or high");
  refuses("dense audit=", LACUNA_BAD_ARGUMENT, "sample");
  refuses("dense threads=-3", LACUNA_BAD_ARGUMENT, "threads");
  refuses("dense threads=99999999999", LACUNA_BAD_ARGUMENT, "threads");
  refuses("streamingllm:window=-1", LACUNA_BAD_ARGUMENT, "streamingllm.window");
  refuses("dense kernel=none", LACUNA_UNKNOWN_NAME, "cpu.ref");
  refuses("dense machine=386", LACUNA_UNKNOWN_NAME, "avx2");
  EXPECT(lacuna_open("dense", NULL) == LACUNA_BAD_ARGUMENT);
  EXPECT(lacuna_attend(NULL, NULL) == LACUNA_BAD_ARGUMENT);
  EXPECT(lacuna_report_json(NULL) == NULL);
  EXPECT(lacuna_new_graph(NULL) == LACUNA_BAD_ARGUMENT);
  EXPECT(lacuna_announce(NULL, 1, 1) == LACUNA_BAD_ARGUMENT);
  EXPECT(lacuna_reset_report(NULL) == LACUNA_BAD_ARGUMENT);
  if (!failures) puts("all good");
  return failures != 0;
}
