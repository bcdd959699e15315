// SPDX-License-Identifier: Apache-2.0
// The C interface over Session. Nothing thrown leaves a function of this file.
#include "lacuna/lacuna_c.h"

#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "lacuna/lacuna.h"

struct lacuna_session {
  std::unique_ptr<lacuna::Session> session;
  std::string error, report;
};

namespace {

thread_local std::string error_without_session;

// Keeps the text where lacuna_last_error finds it; a text that cannot be copied is dropped.
lacuna_status fail(lacuna_session* s, lacuna_status code, const char* what) {
  std::string& text = s ? s->error : error_without_session;
  try {
    text = what;
  } catch (...) {
    text.clear();
  }
  return code;
}

lacuna_status fail(lacuna_session* s, const lacuna::Error& e) {
  switch (e.code) {
    case lacuna::ErrorCode::bad_argument: return fail(s, LACUNA_BAD_ARGUMENT, e.what.c_str());
    case lacuna::ErrorCode::unknown_name: return fail(s, LACUNA_UNKNOWN_NAME, e.what.c_str());
    case lacuna::ErrorCode::unsupported: return fail(s, LACUNA_UNSUPPORTED, e.what.c_str());
    case lacuna::ErrorCode::bad_file: return fail(s, LACUNA_BAD_FILE, e.what.c_str());
    case lacuna::ErrorCode::out_of_memory: return fail(s, LACUNA_OUT_OF_MEMORY, e.what.c_str());
  }
  return fail(s, LACUNA_INTERNAL, e.what.c_str());
}

template <class F>
lacuna_status guarded(lacuna_session* s, F&& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(s, LACUNA_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return fail(s, LACUNA_INTERNAL, e.what());
  } catch (...) {
    return fail(s, LACUNA_INTERNAL, "an exception of unknown type");
  }
}

bool known(std::int32_t dtype) { return dtype >= LACUNA_F32 && dtype <= LACUNA_Q4_0; }

lacuna::Tensor as_tensor(const lacuna_tensor& t) {
  lacuna::Tensor out{t.data, static_cast<lacuna::Dtype>(t.dtype), {}, {}};
  std::memcpy(out.n, t.n, sizeof out.n);
  std::memcpy(out.stride, t.stride, sizeof out.stride);
  return out;
}

}  // namespace

const char* lacuna_version(void) { return lacuna::version(); }

lacuna_status lacuna_open(const char* text, lacuna_session** session) {
  if (!session) return fail(nullptr, LACUNA_BAD_ARGUMENT, "lacuna_open: session is null; pass the address of a pointer");
  *session = nullptr;
  return guarded(nullptr, [&]() -> lacuna_status {
    const auto options = lacuna::parse_options(text ? text : "");
    if (!options.ok()) return fail(nullptr, options.error());
    auto opened = lacuna::Session::open(options.value());
    if (!opened.ok()) return fail(nullptr, opened.error());
    *session = new lacuna_session{std::move(opened.value()), {}, {}};
    return LACUNA_OK;
  });
}

lacuna_status lacuna_attend(lacuna_session* s, const lacuna_attend_call* c) {
  if (!s) return fail(nullptr, LACUNA_BAD_ARGUMENT, "lacuna_attend: session is null; open one with lacuna_open");
  if (!c || c->size < sizeof(lacuna_attend_call))
    return fail(s, LACUNA_BAD_ARGUMENT, "lacuna_attend: call is null or its size is too small; set size = sizeof(lacuna_attend_call)");
  return guarded(s, [&]() -> lacuna_status {
    for (const lacuna_tensor* t : {&c->q, &c->k, &c->v, &c->out})
      if (!known(t->dtype)) return fail(s, LACUNA_BAD_ARGUMENT, "lacuna_attend: an unknown dtype; need LACUNA_F32, LACUNA_F16, LACUNA_BF16, LACUNA_Q8_0 or LACUNA_Q4_0");
    lacuna::AttendCall call;
    call.layer = c->layer;
    call.q = as_tensor(c->q);
    call.k = as_tensor(c->k);
    call.v = as_tensor(c->v);
    call.out = as_tensor(c->out);
    call.lse = c->lse;
    call.scale = c->scale;
    call.softcap = c->softcap;
    call.sinks = c->sinks;
    call.mask = {c->mask, c->mask_row_stride, c->mask_row_cell, c->mask_cell_pos};
    call.slopes = c->slopes;
    const auto done = s->session->attend(call);
    return done.ok() ? LACUNA_OK : fail(s, done.error());
  });
}

lacuna_status lacuna_new_graph(lacuna_session* s) {
  if (!s) return fail(nullptr, LACUNA_BAD_ARGUMENT, "lacuna_new_graph: session is null; open one with lacuna_open");
  s->session->new_graph();
  return LACUNA_OK;
}

lacuna_status lacuna_announce(lacuna_session* s, int32_t n_layers, int64_t prompt_tokens) {
  if (!s) return fail(nullptr, LACUNA_BAD_ARGUMENT, "lacuna_announce: session is null; open one with lacuna_open");
  if (n_layers < 0) return fail(s, LACUNA_BAD_ARGUMENT, "lacuna_announce: n_layers is negative; need 0 (unknown) or more");
  if (prompt_tokens < -1)
    return fail(s, LACUNA_BAD_ARGUMENT, "lacuna_announce: prompt_tokens is below -1; need -1 (unknown) or more");
  s->session->announce(n_layers, prompt_tokens);
  return LACUNA_OK;
}

lacuna_status lacuna_reset_report(lacuna_session* s) {
  if (!s) return fail(nullptr, LACUNA_BAD_ARGUMENT, "lacuna_reset_report: session is null; open one with lacuna_open");
  return guarded(s, [&] {
    s->session->reset_report();
    return LACUNA_OK;
  });
}

const char* lacuna_report_json(lacuna_session* s) {
  if (!s) {
    fail(nullptr, LACUNA_BAD_ARGUMENT, "lacuna_report_json: session is null; open one with lacuna_open");
    return nullptr;
  }
  const lacuna_status done = guarded(s, [&] {
    s->report = s->session->report_json();
    return LACUNA_OK;
  });
  return done == LACUNA_OK ? s->report.c_str() : nullptr;
}

const char* lacuna_last_error(const lacuna_session* s) { return s ? s->error.c_str() : error_without_session.c_str(); }

void lacuna_close(lacuna_session* s) { delete s; }
