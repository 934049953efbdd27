// All kernels, as one module.
#include "matrix.cu"
