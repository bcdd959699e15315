/* SPDX-License-Identifier: Apache-2.0 */
/* The C interface of Lacuna: one session with the calls of lacuna.h; nothing is thrown.
 * Not here: side copies kept by the caller (PackedTensor), a caller's own threads, plans apart from calls,
 * gradients, and the report as a structure; lacuna_report_json has all of its fields.
 *
 *   lacuna_session* s = NULL;
 *   if (lacuna_open("xattention:stride=8 precision=fast audit=sample", &s) != LACUNA_OK)
 *     puts(lacuna_last_error(NULL));
 *   lacuna_attend_call call = {.size = sizeof call};   ... fill q, k, v, out
 *   if (lacuna_attend(s, &call) != LACUNA_OK) puts(lacuna_last_error(s));
 *   puts(lacuna_report_json(s));
 *   lacuna_close(s);
 *
 * A session belongs to one thread at a time; several sessions may run at once. */
#ifndef LACUNA_C_H
#define LACUNA_C_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LACUNA_API __attribute__((visibility("default")))
#else
#define LACUNA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lacuna_status {
  LACUNA_OK = 0,
  LACUNA_BAD_ARGUMENT = 1, /* a value out of range, a shape that does not fit, a null pointer */
  LACUNA_UNKNOWN_NAME = 2, /* method, parameter, kernel, option */
  LACUNA_UNSUPPORTED = 3,  /* legal, but no kernel takes it */
  LACUNA_BAD_FILE = 4,
  LACUNA_OUT_OF_MEMORY = 5,
  LACUNA_INTERNAL = 6 /* a fault of Lacuna's own */
} lacuna_status;

/* The last two: llama.cpp's blocks of 32 channels, of k and v only; lacuna/dtype.h has their bytes. */
typedef enum lacuna_dtype { LACUNA_F32 = 0, LACUNA_F16 = 1, LACUNA_BF16 = 2, LACUNA_Q8_0 = 3, LACUNA_Q4_0 = 4 } lacuna_dtype;

/* Memory of the caller as [batch, heads, tokens or cells, channels]; strides in elements, 0 or more,
 * the last one 1. Of quantised types, channels and strides are multiples of 32. */
typedef struct lacuna_tensor {
  void* data;
  int32_t dtype; /* lacuna_dtype */
  int64_t n[4];
  int64_t stride[4];
} lacuna_tensor;

typedef struct lacuna_attend_call {
  size_t size; /* sizeof(lacuna_attend_call): later versions only append fields; zero what you do not set */
  int32_t layer;
  lacuna_tensor q;    /* [1, Hq, Nq, Dk] f32 */
  lacuna_tensor k;    /* [1, Hkv, C, Dk] any lacuna_dtype */
  lacuna_tensor v;    /* [1, Hkv, C, Dv] the same type as k, or any if one of them is quantised */
  lacuna_tensor out;  /* [1, Hq, Nq, Dv] f32, written */
  float* lse;         /* [Hq, Nq], written; or null */
  float scale;        /* 0 = 1 / sqrt(Dk) */
  float softcap;      /* 0 = none */
  const float* sinks; /* [Hq]; or null */
  const uint16_t* mask;         /* f16 [Nq][mask_row_stride]: 0 visible, -infinity hidden, else a bias; */
  int64_t mask_row_stride;      /* null: causal, the last row aligned with the last cell */
  const int32_t* mask_row_cell; /* [Nq] the cell of a row's own key, -1 unknown; or null */
  const int32_t* mask_cell_pos; /* [C] position of a cell's token, -1 unknown; or null */
  const float* slopes;          /* [Hq] factor of the mask's finite values (ALiBi); null = 1 */
} lacuna_attend_call;

typedef struct lacuna_session lacuna_session;

LACUNA_API const char* lacuna_version(void);

/* Opens a session from the text a plug-in takes: a method spec, then words of the form key=value:
 * precision=fast|high audit=off|sample|full seed=N kernel=NAME machine=NAME threads=N. Null or empty
 * text means dense. On failure *session is null and lacuna_last_error(NULL) says why. */
LACUNA_API lacuna_status lacuna_open(const char* text, lacuna_session** session);
LACUNA_API lacuna_status lacuna_attend(lacuna_session* session, const lacuna_attend_call* call);
/* Masks at the same address are the same until the next call of this; without it all are read anew. */
LACUNA_API lacuna_status lacuna_new_graph(lacuna_session* session);
/* How many layers the model has and how long the prompt will be, for methods that ask; 0 layers and -1
 * tokens mean unknown. */
LACUNA_API lacuna_status lacuna_announce(lacuna_session* session, int32_t n_layers, int64_t prompt_tokens);
/* What was kept, what it cost, what was lost, as JSON. The text is the session's and stays until the
 * next call of this or lacuna_close. Null on failure. */
LACUNA_API const char* lacuna_report_json(lacuna_session* session);
/* Forgets what the report has counted: the next one begins at nothing. */
LACUNA_API lacuna_status lacuna_reset_report(lacuna_session* session);
/* Text of the session's last failure, "" if none; with null, of this thread's last failure of lacuna_open
 * or of a call that got no session. Stays until the next failure. */
LACUNA_API const char* lacuna_last_error(const lacuna_session* session);
/* Frees everything; null is legal. */
LACUNA_API void lacuna_close(lacuna_session* session);

#ifdef __cplusplus
}
#endif

#endif /* LACUNA_C_H */
