// SPDX-License-Identifier: Apache-2.0
// One function per verb. argv[0] is the verb's name; the answer is the exit code (ExitCode).
#pragma once

namespace lacuna::cli {

int verb_list(int argc, char** argv);
int verb_show(int argc, char** argv);
int verb_explain(int argc, char** argv);
int verb_doctor(int argc, char** argv);
int verb_run(int argc, char** argv);
int verb_compare(int argc, char** argv);
int verb_serve(int argc, char** argv);
int verb_calibrate(int argc, char** argv);
int verb_tune(int argc, char** argv);
int verb_check(int argc, char** argv);
int verb_bench(int argc, char** argv);
int verb_docs(int argc, char** argv);
int verb_task(int argc, char** argv);  // hidden: one method answers the samples of a task
int verb_kl(int argc, char** argv);  // hidden: compare's pass over logits, in a process of its own

}  // namespace lacuna::cli
