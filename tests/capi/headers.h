/* The C99 programs of this folder, each of which includes one public header before anything else. They return
 * 0, or the number of the check that failed. */
#ifndef SEGPRIOR_TESTS_HEADERS_H
#define SEGPRIOR_TESTS_HEADERS_H

#ifdef __cplusplus
extern "C" {
#endif
int segprior_test_core_header(void);
int segprior_test_csr_header(void);
int segprior_test_softmax_header(void);
int segprior_test_softcut_header(void);
int segprior_test_losses_header(void);
int segprior_test_proposals_header(void);
int segprior_test_metrics_header(void);
int segprior_test_segprior_header(void);
#ifdef __cplusplus
}
#endif
#endif
