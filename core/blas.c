#include "core/blas.h"

#include <cblas.h>
#include <limits.h>
#include <stdlib.h>

/* LAPACK, which OpenBLAS holds too; Debian has its headers only with packages that we need for nothing else. Fortran passes
 * the length of each character argument behind the others. Our upper triangle by rows is its lower one by columns. */
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info, size_t uplo_len);
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_len);
void dpotri_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t uplo_len);

/* BLAS takes int sizes; a larger one is a bug of the caller, which has to cut its batches. */
static int blas_int(size_t n)
{
    if (n > INT_MAX)
        abort();
    return (int)n;
}

void blas_set_threads(int n)
{
    openblas_set_num_threads(n < 1 ? 1 : n);
}

static CBLAS_TRANSPOSE op(bool transposed)
{
    return transposed ? CblasTrans : CblasNoTrans;
}

static int leading(size_t ld)
{
    return blas_int(ld > 0 ? ld : 1); // BLAS refuses 0 even where there is nothing to read
}

void blas_sgemm(bool ta, bool tb, size_t m, size_t n, size_t n_k, float alpha, const float *a, size_t lda,
                const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    cblas_sgemm(CblasRowMajor, op(ta), op(tb), blas_int(m), blas_int(n), blas_int(n_k), alpha, a, leading(lda), b,
                leading(ldb), beta, c, leading(ldc));
}

void blas_sgemv(size_t m, size_t n, const float *a, size_t lda, const float *x, float beta, float *y)
{
    cblas_sgemv(CblasRowMajor, CblasNoTrans, blas_int(m), blas_int(n), 1.0f, a, leading(lda), x, 1, beta, y, 1);
}

void blas_ssyrk(bool ta, size_t n, size_t n_k, float alpha, const float *a, size_t lda, float beta, float *c,
                size_t ldc)
{
    cblas_ssyrk(CblasRowMajor, CblasUpper, op(ta), blas_int(n), blas_int(n_k), alpha, a, leading(lda), beta, c,
                leading(ldc));
    for (size_t i = 1; i < n; i++)
        for (size_t j = 0; j < i; j++)
            c[i * ldc + j] = c[j * ldc + i];
}

bool blas_sposv(size_t n, float *a, size_t lda, float *b)
{
    int size = blas_int(n), stride = leading(lda), info = 0;
    spotrf_("L", &size, a, &stride, &info, 1);
    if (info != 0)
        return false;
    cblas_strsv(CblasColMajor, CblasLower, CblasNoTrans, CblasNonUnit, size, a, stride, b, 1);
    cblas_strsv(CblasColMajor, CblasLower, CblasTrans, CblasNonUnit, size, a, stride, b, 1);
    return true;
}

bool blas_dpotri(size_t n, double *a)
{
    int size = blas_int(n), stride = leading(n), info = 0;
    dpotrf_("L", &size, a, &stride, &info, 1);
    if (info == 0)
        dpotri_("L", &size, a, &stride, &info, 1);
    for (size_t i = 1; info == 0 && i < n; i++)
        for (size_t j = 0; j < i; j++)
            a[i * n + j] = a[j * n + i];
    return info == 0;
}
