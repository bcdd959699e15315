/* SPDX-License-Identifier: Apache-2.0 */
/* A ggml from the future: all the plug-in may learn of it is its version. */
const char* ggml_version(void);
const char* ggml_version(void) { return "0.99.0"; }
