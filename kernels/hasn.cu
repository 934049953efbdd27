// All kernels as one module, in the order in which a frame passes them.
#include "ingest.cu"
#include "matrix.cu"
#include "resample.cu"

#include "enter.cu"
#include "norm.cu"
#include "esa.cu"
#include "gate.cu"
#include "cab.cu"
#include "leave.cu"

#include "egress.cu"

#include "probe.cu"
