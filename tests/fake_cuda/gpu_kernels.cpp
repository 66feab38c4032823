/* The kernels of ikc_deploy/runtime/cuda, compiled for the host: the fake driver runs the source that
 * users' GPUs run as PTX, one thread after the other. */
#include <cmath>
#include <cstring>

#define __device__
#define __global__

struct place {
    unsigned int x;
};
static thread_local place blockIdx, blockDim, threadIdx;

static unsigned long long atomicAdd(unsigned long long *at, unsigned long long value) {
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

#include "plane_sums.cu"

static const struct {
    const char *name;
    void (*run)(const PlaneCells);
} kernels[] = {{"sum_levels", sum_levels}, {"sum_steps", sum_steps}};

extern "C" {
/* The number of a kernel; -1 if there is none of this name. */
int gpu_kernel(const char *name) {
    for (int i = 0; i < 2; i++)
        if (!std::strcmp(kernels[i].name, name)) return i;
    return -1;
}

unsigned long gpu_kernel_arguments(void) { return sizeof(PlaneCells); }

/* What a kernel reads and writes: addresses and sizes in bytes. */
void gpu_kernel_memory(const void *arguments, void **read, size_t *size, void **written, size_t *sums) {
    const PlaneCells *c = (const PlaneCells *)arguments;
    *read = (void *)c->pixels;
    *size = ((c->rows * c->height - 1) * c->row_stride + (c->columns * c->width - 1) * c->column_stride + 1) *
            (c->is_float ? 4 : 1);
    *written = (void *)c->sums;
    *sums = c->rows * c->columns * 8;
}

void gpu_kernel_run(int kernel, const void *arguments, unsigned int blocks, unsigned int threads) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
            kernels[kernel].run(*(const PlaneCells *)arguments);
}
}
