// Marks functions that both compilers and both backends share.
#pragma once

#if defined(__CUDACC__)
#define SEGPRIOR_HD __host__ __device__
#else
#define SEGPRIOR_HD
#endif
