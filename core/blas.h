/* blas.h - the one user of cblas in core and train: matrix products on row-major floats.
 * Threads: OpenBLAS's pool is one for the whole process, so its size is set once by the program, before other threads
 *          start. The daemon uses 1: requests are the parallelism, and OpenBLAS crashes under ~130 concurrent callers that
 *          each fan out. Products may be called from any number of threads. */
#ifndef DUET_BLAS_H
#define DUET_BLAS_H

#include <stdbool.h>
#include <stddef.h>

/* Threads that one product may use; at least 1. */
void blas_set_threads(int n);

/* C = alpha op(A) op(B) + beta C. op(A) is [m][n_k], op(B) [n_k][n], C [m][n]; ta: A is stored transposed, [n_k][m]; tb the same.
 * ld*: floats from one stored row to the next. Any size may be 0. beta = 0 does not read C. Sizes above 2^31 - 1 abort. */
void blas_sgemm(bool ta, bool tb, size_t m, size_t n, size_t n_k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                float beta, float *c, size_t ldc);

/* y = A x + beta y; A [m][n]. Towers use dense.h, which is faster; this is what it is measured against. */
void blas_sgemv(size_t m, size_t n, const float *a, size_t lda, const float *x, float beta, float *y);

/* C = alpha A A' + beta C, or alpha A' A + beta C where `ta`: [n][n], both triangles filled. A has n rows (columns where `ta`)
 * and n_k columns (rows). */
void blas_ssyrk(bool ta, size_t n, size_t n_k, float alpha, const float *a, size_t lda, float beta, float *c, size_t ldc);

/* Solves A x = b in place: A [n][n] symmetric, both triangles given, its Cholesky factor afterwards. False, and b spoilt, where A
 * is not positive definite. */
bool blas_sposv(size_t n, float *a, size_t lda, float *b);

/* A := inverse of A, symmetric and positive definite, both triangles given and filled. False where it is not. In double: what
 * it is for (EASE^R) inverts thousands of rows. */
bool blas_dpotri(size_t n, double *a);

#endif
