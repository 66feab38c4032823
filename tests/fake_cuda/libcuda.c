/* A stand-in for NVIDIA's driver, for tests without a GPU: libcuda.so.1 whose device memory is host
 * memory and whose kernels are host functions.
 *
 * Streams are threads of their own, so what is not waited for is not there yet. It is stricter than a
 * driver where that shows mistakes: fresh memory holds 0xCD and freed memory 0xDD; copies must lie
 * inside live allocations, and asynchronous ones need pinned host memory; most calls need a current
 * context; memory that is freed while a copy needs it is counted. Graphs are lists: a capture
 * records what one stream is given, and a launch replays it.
 *
 * Any call can be made to fail (fake_fail). Functions of the driver that pycuda links and this file
 * lacks are generated as refusals (see build.py).
 */
#define _GNU_SOURCE
#include <cuda.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* cuda.h renames functions to their newest versions; this file defines the exported names. */

/* ---------------------------------------------------------------- state */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

typedef struct block {
    struct block *next;
    char *at;
    size_t size;
    int pinned;
    int device;
} block;

static block *live, *doomed;
static size_t device_bytes, device_limit = (size_t)1 << 40;
static useconds_t lag; /* what every copy takes longer */
static long pending; /* operations that are queued or running, over all streams */

enum {
    DEVICE_ALLOCATIONS,
    DEVICE_FREES,
    PINNED_ALLOCATIONS,
    PINNED_FREES,
    STREAMS_MADE,
    STREAMS_GONE,
    EVENTS_MADE,
    EVENTS_GONE,
    GRAPHS_MADE,
    GRAPHS_GONE,
    GRAPH_LAUNCHES,
    HOST_FUNCTIONS,
    BUSY_FREES,
    CONTEXT_RETAINS,
    CONTEXT_RELEASES,
    INITS,
    RECTANGLES,
    SECOND_DEVICE_ALLOCATIONS,
    UPLOADED_BYTES,
    DOWNLOADED_BYTES,
    KERNELS,
    COUNTERS
};
static long counters[COUNTERS];

#define FAILURES 8
static struct {
    char name[64];
    int skip;
    CUresult code;
} failures[FAILURES];

#define DEVICES 2
static struct CUctx_st {
    int retained;
} primary[DEVICES];

#define DEPTH 16
static __thread CUcontext stack[DEPTH];
static __thread int depth;

typedef enum { COPY, FILL, RECORD, WAIT, CALL, KERNEL } kind;

typedef struct op {
    struct op *next;
    kind what;
    void *to;
    const void *from;
    size_t size;
    CUevent event;
    long generation;
    CUhostFn call;
    int value;
    void *arguments;
    unsigned int blocks, threads;
} op;

struct CUevent_st {
    long asked, done; /* generations of records: given to a stream, reached by it */
    int captured;
    int references;
    struct timespec when;
};

struct CUgraph_st {
    op *first, *last;
};

struct CUgraphExec_st {
    op *first;
};

struct CUstream_st {
    op *first, *last, *now;
    int closing;
    CUgraph capture;
    CUstreamCaptureMode mode;
    pthread_t captor;
    CUresult broken; /* what invalidated the capture */
    pthread_t worker;
};

/* ---------------------------------------------------------------- what tests ask */

void fake_reset(void) {
    pthread_mutex_lock(&lock);
    memset(counters, 0, sizeof counters);
    memset(failures, 0, sizeof failures);
    device_limit = (size_t)1 << 40;
    lag = 0;
    pthread_mutex_unlock(&lock);
}

void fake_lag(int milliseconds) { lag = 1000 * (useconds_t)milliseconds; }

long fake_counter(int which) {
    pthread_mutex_lock(&lock);
    long value = counters[which];
    pthread_mutex_unlock(&lock);
    return value;
}

size_t fake_device_bytes(void) { return device_bytes; }

void fake_limit(size_t bytes) { device_limit = bytes; }

/* Let the call to `name` after the next `skip` ones return `code`, once. */
void fake_fail(const char *name, int skip, int code) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FAILURES; i++) {
        if (!failures[i].name[0]) {
            snprintf(failures[i].name, sizeof failures[i].name, "%s", name);
            failures[i].skip = skip;
            failures[i].code = (CUresult)code;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

/* How many contexts the calling thread has pushed. */
int fake_depth(void) { return depth; }

static CUresult injected(const char *name) {
    CUresult code = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FAILURES; i++) {
        if (!strcmp(failures[i].name, name) && failures[i].skip-- <= 0) {
            code = failures[i].code;
            failures[i].name[0] = 0;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return code;
}

static void add(int which, size_t number) {
    pthread_mutex_lock(&lock);
    counters[which] += (long)number;
    pthread_mutex_unlock(&lock);
}

static void count(int which) { add(which, 1); }

#define INJECT                                        \
    do {                                              \
        CUresult injected_code = injected(__func__);  \
        if (injected_code) return injected_code;      \
    } while (0)

#define ENTER                                                            \
    do {                                                                 \
        INJECT;                                                          \
        if (!depth || !stack[depth - 1]) return CUDA_ERROR_INVALID_CONTEXT; \
    } while (0)

/* ---------------------------------------------------------------- device and context */

CUresult cuInit(unsigned int flags) {
    (void)flags;
    INJECT;
    count(INITS);
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version) {
    *version = 13000;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *number) {
    INJECT;
    *number = DEVICES;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    INJECT;
    if (ordinal < 0 || ordinal >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
    (void)device;
    snprintf(name, (size_t)size, "fake driver");
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    (void)device;
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 9; break;
        default: *value = 1;
    }
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    cuDeviceGetAttribute(major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
    return cuDeviceGetAttribute(minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    (void)device;
    *bytes = device_limit;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    INJECT;
    pthread_mutex_lock(&lock);
    primary[device].retained++;
    counters[CONTEXT_RETAINS]++;
    pthread_mutex_unlock(&lock);
    *context = &primary[device];
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    pthread_mutex_lock(&lock);
    primary[device].retained--;
    counters[CONTEXT_RELEASES]++;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
    INJECT;
    if (depth == DEPTH) return CUDA_ERROR_UNKNOWN;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    CUcontext popped = stack[--depth];
    if (context) *context = popped;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = depth ? stack[depth - 1] : NULL;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    if (!depth) depth = 1;
    stack[depth - 1] = context;
    return CUDA_SUCCESS;
}

/* The device of the current context; contexts of other libraries are on the first. */
static int current_device(void) {
    return depth && stack[depth - 1] == &primary[1] ? 1 : 0;
}

CUresult cuCtxGetDevice(CUdevice *device) {
    ENTER;
    *device = current_device();
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void) {
    ENTER;
    pthread_mutex_lock(&lock);
    while (pending) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **name) {
    switch (error) {
        case CUDA_SUCCESS: *name = "CUDA_SUCCESS"; break;
        case CUDA_ERROR_OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case CUDA_ERROR_INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
        case CUDA_ERROR_INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
        case CUDA_ERROR_NOT_SUPPORTED: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
        case CUDA_ERROR_LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        default: *name = "an error of the fake driver"; break;
    }
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) { return cuGetErrorName(error, text); }

/* ---------------------------------------------------------------- memory */

#define STREAMS 64
static CUstream known[STREAMS];

static int touches(const op *o, const block *b) {
    const char *ends[] = {o->to, o->from};
    for (int i = 0; i < 2; i++)
        if ((o->what == COPY || o->what == FILL || o->what == KERNEL) && ends[i] >= b->at && ends[i] < b->at + b->size)
            return 1;
    return 0;
}

/* Whether a copy that is queued or running needs the block; kernels say nothing. */
static int needed(const block *b) { /* with the lock held */
    for (int i = 0; i < STREAMS; i++) {
        if (!known[i]) continue;
        if (known[i]->now && touches(known[i]->now, b)) return 1;
        for (const op *o = known[i]->first; o; o = o->next)
            if (touches(o, b)) return 1;
    }
    return 0;
}

static block *holding(const void *at, size_t size) {
    for (block *b = live; b; b = b->next)
        if ((const char *)at >= b->at && (const char *)at + size <= b->at + b->size) return b;
    return NULL;
}

/* Whether a range lies inside one live allocation of this kind, on the current device. */
static int inside(const void *at, size_t size, int pinned) {
    pthread_mutex_lock(&lock);
    block *b = holding(at, size);
    int yes = b && b->pinned == pinned && (pinned || b->device == current_device());
    pthread_mutex_unlock(&lock);
    return yes;
}

static CUresult allocate(void **at, size_t size, int pinned) {
    if (!size) return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (!pinned && device_bytes + size > device_limit) {
        pthread_mutex_unlock(&lock);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    block *b = malloc(sizeof *b);
    b->at = aligned_alloc(256, (size + 255) / 256 * 256);
    b->size = size;
    b->pinned = pinned;
    b->device = current_device();
    memset(b->at, 0xCD, size);
    b->next = live;
    live = b;
    if (!pinned) device_bytes += size;
    if (!pinned && b->device) counters[SECOND_DEVICE_ALLOCATIONS]++;
    counters[pinned ? PINNED_ALLOCATIONS : DEVICE_ALLOCATIONS]++;
    *at = b->at;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

static void bury(void) { /* with the lock held */
    while (!pending && doomed) {
        block *b = doomed;
        doomed = b->next;
        memset(b->at, 0xDD, b->size);
        free(b->at);
        free(b);
    }
}

static CUresult release(void *at, int pinned) {
    pthread_mutex_lock(&lock);
    for (block **link = &live; *link; link = &(*link)->next) {
        block *b = *link;
        if (b->at != at || b->pinned != pinned) continue;
        *link = b->next;
        if (needed(b)) counters[BUSY_FREES]++;
        if (!pinned) device_bytes -= b->size;
        counters[pinned ? PINNED_FREES : DEVICE_FREES]++;
        b->next = doomed;
        doomed = b;
        bury();
        pthread_mutex_unlock(&lock);
        return CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&lock);
    return CUDA_ERROR_INVALID_VALUE;
}

/* An allocation breaks captures that watch for it: global ones, and those of its own thread. */
static CUresult capture_elsewhere(void);

CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t size) {
    ENTER;
    CUresult busy = capture_elsewhere();
    return busy ? busy : allocate((void **)at, size, 0);
}

CUresult cuMemFree_v2(CUdeviceptr at) {
    ENTER;
    return release((void *)at, 0);
}

CUresult cuMemHostAlloc(void **at, size_t size, unsigned int flags) {
    (void)flags;
    ENTER;
    return allocate(at, size, 1);
}

CUresult cuMemFreeHost(void *at) {
    ENTER;
    return release(at, 1);
}

CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
    ENTER;
    *available = device_limit - device_bytes;
    *total = device_limit;
    return CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr at) {
    pthread_mutex_lock(&lock);
    block *b = holding((void *)at, 1);
    int pinned = b && b->pinned;
    int ordinal = b ? b->device : 0;
    pthread_mutex_unlock(&lock);
    if (!b) return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
            *(unsigned int *)value = pinned ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
            return CUDA_SUCCESS;
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)value = ordinal; return CUDA_SUCCESS;
        case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(unsigned int *)value = 0; return CUDA_SUCCESS;
        default: return CUDA_ERROR_NOT_SUPPORTED;
    }
}

CUresult cuPointerGetAttributes(
    unsigned int number, CUpointer_attribute *attributes, void **values, CUdeviceptr at) {
    for (unsigned int i = 0; i < number; i++) {
        CUresult code = cuPointerGetAttribute(values[i], attributes[i], at);
        /* As the driver does, memory that it does not know leaves the values alone. */
        if (code && code != CUDA_ERROR_INVALID_VALUE) return code;
    }
    return CUDA_SUCCESS;
}

/* ---------------------------------------------------------------- streams */

/* In gpu_kernels.cpp. */
int gpu_kernel(const char *name);
unsigned long gpu_kernel_arguments(void);
void gpu_kernel_memory(const void *arguments, void **read, size_t *size, void **written, size_t *sums);
void gpu_kernel_run(int kernel, const void *arguments, unsigned int blocks, unsigned int threads);

static void reached(CUevent event, long generation) { /* with the lock held */
    clock_gettime(CLOCK_MONOTONIC, &event->when);
    if (event->done < generation) event->done = generation;
}

static void drop(CUevent event) { /* with the lock held */
    if (!--event->references) free(event);
}

static void perform(op *o) {
    switch (o->what) {
        case COPY:
            usleep(lag);
            memmove(o->to, o->from, o->size);
            break;
        case FILL: memset(o->to, o->value, o->size); break;
        case CALL: o->call(o->to); break;
        case KERNEL:
            gpu_kernel_run(o->value, o->arguments, o->blocks, o->threads);
            free(o->arguments);
            break;
        case RECORD:
            pthread_mutex_lock(&lock);
            reached(o->event, o->generation);
            drop(o->event);
            pthread_mutex_unlock(&lock);
            break;
        case WAIT:
            pthread_mutex_lock(&lock);
            while (o->event->done < o->generation) pthread_cond_wait(&changed, &lock);
            drop(o->event);
            pthread_mutex_unlock(&lock);
            break;
    }
}

static void *work(void *of) {
    CUstream stream = of;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!stream->first && !stream->closing) pthread_cond_wait(&changed, &lock);
        if (!stream->first) break;
        op *o = stream->first;
        stream->first = o->next;
        stream->now = o;
        pthread_mutex_unlock(&lock);
        perform(o);
        pthread_mutex_lock(&lock);
        stream->now = NULL;
        free(o);
        pending--;
        bury();
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&lock);
    free(stream);
    return NULL;
}

static CUresult invalidated(CUstream stream, CUresult code) {
    if (stream && stream->capture && !stream->broken) stream->broken = code;
    return code;
}

static void append(op **first, op **last, op *o) {
    o->next = NULL;
    if (*first)
        (*last)->next = o;
    else
        *first = o;
    *last = o;
}

static void enqueue(CUstream stream, op o) { /* with the lock held */
    op *copy = malloc(sizeof *copy);
    *copy = o;
    if (stream->capture) {
        append(&stream->capture->first, &stream->capture->last, copy);
        return;
    }
    if (o.what == RECORD) copy->generation = ++o.event->asked;
    if (o.what == RECORD || o.what == WAIT) o.event->references++;
    pending++;
    append(&stream->first, &stream->last, copy);
    pthread_cond_broadcast(&changed);
}

static CUstream new_stream(void) {
    CUstream made = calloc(1, sizeof *made);
    pthread_create(&made->worker, NULL, work, made);
    pthread_detach(made->worker);
    return made;
}

/* The legacy default stream, on which other libraries work. It does not wait for other streams here. */
static CUstream resolved(CUstream stream) {
    static CUstream legacy = NULL;
    if ((uintptr_t)stream > 2) return stream;
    pthread_mutex_lock(&lock);
    if (!legacy) legacy = new_stream();
    pthread_mutex_unlock(&lock);
    return legacy;
}

static CUresult give(CUstream stream, op o) {
    stream = resolved(stream);
    pthread_mutex_lock(&lock);
    enqueue(stream, o);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

static CUresult capture_elsewhere(void) {
    CUresult code = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < STREAMS; i++) {
        CUstream s = known[i];
        if (!s || !s->capture || s->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
        if (s->mode == CU_STREAM_CAPTURE_MODE_GLOBAL || pthread_equal(s->captor, pthread_self()))
            code = invalidated(s, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
    ENTER;
    /* A stream that waits for the default stream waits for every other library. */
    if (flags != CU_STREAM_NON_BLOCKING) return CUDA_ERROR_NOT_SUPPORTED;
    CUstream made = new_stream();
    pthread_mutex_lock(&lock);
    counters[STREAMS_MADE]++;
    for (int i = 0; i < STREAMS; i++)
        if (!known[i]) {
            known[i] = made;
            break;
        }
    pthread_mutex_unlock(&lock);
    *stream = made;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream stream) {
    ENTER;
    pthread_mutex_lock(&lock);
    counters[STREAMS_GONE]++;
    for (int i = 0; i < STREAMS; i++)
        if (known[i] == stream) known[i] = NULL;
    stream->closing = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    ENTER;
    if (stream->capture) return invalidated(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    pthread_mutex_lock(&lock);
    while (stream->first || stream->now) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream stream) {
    ENTER;
    pthread_mutex_lock(&lock);
    int idle = !stream->first && !stream->now;
    pthread_mutex_unlock(&lock);
    return idle ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags) {
    (void)flags;
    ENTER;
    return give(stream, (op){.what = WAIT, .event = event, .generation = event->asked});
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn call, void *with) {
    ENTER;
    count(HOST_FUNCTIONS);
    return give(stream, (op){.what = CALL, .call = call, .to = with});
}

static CUresult copy(CUstream stream, void *to, const void *from, size_t size) {
    return give(stream, (op){.what = COPY, .to = to, .from = from, .size = size});
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    ENTER;
    if (!inside((void *)to, size, 0) || !inside(from, size, 1)) return CUDA_ERROR_INVALID_VALUE;
    add(UPLOADED_BYTES, size);
    return copy(stream, (void *)to, from, size);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER;
    if (!inside(to, size, 1) || !inside((void *)from, size, 0)) return CUDA_ERROR_INVALID_VALUE;
    add(DOWNLOADED_BYTES, size);
    return copy(stream, to, (void *)from, size);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER;
    if (!inside((void *)to, size, 0) || !inside((void *)from, size, 0))
        return CUDA_ERROR_INVALID_VALUE;
    return copy(stream, (void *)to, (void *)from, size);
}

/* A rectangle is copied row by row; the driver's limits on pitches hold. */
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *what, CUstream stream) {
    ENTER;
    if (what->srcMemoryType != CU_MEMORYTYPE_DEVICE || what->dstMemoryType != CU_MEMORYTYPE_DEVICE)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (what->srcPitch < what->WidthInBytes || what->dstPitch < what->WidthInBytes)
        return CUDA_ERROR_INVALID_VALUE;
    count(RECTANGLES);
    for (size_t row = 0; row < what->Height; row++) {
        char *to = (char *)what->dstDevice + row * what->dstPitch;
        const char *from = (const char *)what->srcDevice + row * what->srcPitch;
        if (!inside(to, what->WidthInBytes, 0) || !inside(from, what->WidthInBytes, 0))
            return CUDA_ERROR_INVALID_VALUE;
        copy(stream, to, from, what->WidthInBytes);
    }
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size) {
    ENTER;
    if (!inside((void *)to, size, 0)) return CUDA_ERROR_INVALID_VALUE;
    memcpy((void *)to, from, size);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size) {
    ENTER;
    if (!inside((void *)from, size, 0)) return CUDA_ERROR_INVALID_VALUE;
    memcpy(to, (void *)from, size);
    return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream) {
    ENTER;
    if (!inside((void *)to, size, 0)) return CUDA_ERROR_INVALID_VALUE;
    return give(stream, (op){.what = FILL, .to = (void *)to, .value = value, .size = size});
}

/* ---------------------------------------------------------------- events */

CUresult cuEventCreate(CUevent *event, unsigned int flags) {
    (void)flags;
    ENTER;
    *event = calloc(1, sizeof **event);
    (*event)->references = 1;
    count(EVENTS_MADE);
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event) {
    ENTER;
    pthread_mutex_lock(&lock);
    counters[EVENTS_GONE]++;
    drop(event);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

static CUresult record(CUevent event, CUstream stream, int external) {
    stream = resolved(stream);
    if (stream->capture && !external) {
        event->captured = 1; /* a dependency inside the graph, which cannot be timed */
        return CUDA_SUCCESS;
    }
    event->captured = 0;
    return give(stream, (op){.what = RECORD, .event = event});
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    ENTER;
    return record(event, stream, 0);
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags) {
    ENTER;
    /* The driver refuses this flag outside a capture. */
    if (flags == CU_EVENT_RECORD_EXTERNAL && (uintptr_t)stream > 2 && !stream->capture)
        return CUDA_ERROR_INVALID_VALUE;
    return record(event, stream, flags == CU_EVENT_RECORD_EXTERNAL);
}

CUresult cuEventSynchronize(CUevent event) {
    ENTER;
    if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
    pthread_mutex_lock(&lock);
    while (event->done < event->asked) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent event) {
    ENTER;
    if (event->captured) return CUDA_ERROR_CAPTURED_EVENT;
    pthread_mutex_lock(&lock);
    int done = event->done == event->asked;
    pthread_mutex_unlock(&lock);
    return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end) {
    ENTER;
    if (!start->asked || !end->asked || start->captured || end->captured)
        return CUDA_ERROR_INVALID_HANDLE;
    if (start->done < start->asked || end->done < end->asked) return CUDA_ERROR_NOT_READY;
    *milliseconds = (float)(1e3 * (double)(end->when.tv_sec - start->when.tv_sec) +
                            1e-6 * (double)(end->when.tv_nsec - start->when.tv_nsec));
    return CUDA_SUCCESS;
}

/* ---------------------------------------------------------------- kernels */

/* A module is its text; kernels are those of gpu_kernels.cpp that the text has an entry for. */
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    ENTER;
    if (!strstr(image, ".version") || !strstr(image, ".target")) return CUDA_ERROR_INVALID_IMAGE;
    *module = (CUmodule)strdup(image);
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    char entry[128];
    ENTER;
    snprintf(entry, sizeof entry, ".visible .entry %s(", name);
    if (!strstr((const char *)module, entry) || gpu_kernel(name) < 0) return CUDA_ERROR_NOT_FOUND;
    *function = (CUfunction)(intptr_t)(gpu_kernel(name) + 1);
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(
    CUfunction function, unsigned int blocks, unsigned int blocks_y, unsigned int blocks_z,
    unsigned int threads, unsigned int threads_y, unsigned int threads_z, unsigned int shared,
    CUstream stream, void **arguments, void **extra) {
    void *read, *written;
    size_t size, sums;
    ENTER;
    if (!blocks || !threads || blocks_y * blocks_z * threads_y * threads_z != 1 || shared || extra)
        return CUDA_ERROR_INVALID_VALUE;
    gpu_kernel_memory(arguments[0], &read, &size, &written, &sums);
    if (!inside(read, size, 0) || !inside(written, sums, 0)) return CUDA_ERROR_ILLEGAL_ADDRESS;
    if (stream->capture) return CUDA_ERROR_NOT_SUPPORTED; /* its arguments are kept for one run */
    count(KERNELS);
    /* As the driver does, the arguments are copied at once. */
    void *copied = malloc(gpu_kernel_arguments());
    memcpy(copied, arguments[0], gpu_kernel_arguments());
    return give(
        stream, (op){
                    .what = KERNEL,
                    .value = (int)(intptr_t)function - 1,
                    .from = read,
                    .to = written,
                    .arguments = copied,
                    .blocks = blocks,
                    .threads = threads,
                });
}

/* ---------------------------------------------------------------- graphs */

static void discard(op *first) {
    while (first) {
        op *next = first->next;
        free(first);
        first = next;
    }
}

CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    ENTER;
    if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    pthread_mutex_lock(&lock);
    stream->capture = calloc(1, sizeof *stream->capture);
    stream->mode = mode;
    stream->captor = pthread_self();
    stream->broken = CUDA_SUCCESS;
    counters[GRAPHS_MADE]++;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    CUresult code = injected(__func__);
    pthread_mutex_lock(&lock);
    CUgraph captured = stream->capture;
    stream->capture = NULL;
    pthread_mutex_unlock(&lock);
    if (!captured) return CUDA_ERROR_ILLEGAL_STATE;
    *graph = captured;
    if (!code && stream->broken) code = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (code) { /* a capture ends in any case */
        discard(captured->first);
        free(captured);
        *graph = NULL;
        count(GRAPHS_GONE);
    }
    return code;
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
    ENTER;
    *status = (uintptr_t)stream > 2 && stream->capture ? CU_STREAM_CAPTURE_STATUS_ACTIVE
                                                       : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
    ENTER;
    discard(graph->first);
    free(graph);
    count(GRAPHS_GONE);
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    (void)flags;
    ENTER;
    CUgraphExec made = calloc(1, sizeof *made);
    op *last = NULL;
    for (op *o = graph->first; o; o = o->next) {
        op *clone = malloc(sizeof *clone);
        *clone = *o;
        append(&made->first, &last, clone);
    }
    count(GRAPHS_MADE);
    *exec = made;
    return CUDA_SUCCESS;
}

CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
    (void)exec;
    (void)stream;
    ENTER;
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    ENTER;
    discard(exec->first);
    free(exec);
    count(GRAPHS_GONE);
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    ENTER;
    count(GRAPH_LAUNCHES);
    pthread_mutex_lock(&lock);
    for (op *o = exec->first; o; o = o->next) enqueue(stream, *o);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

/* ---------------------------------------------------------------- how cuda-bindings finds functions */

static void *self(void) {
    static void *handle;
    Dl_info info;
    if (!handle && dladdr((void *)cuInit, &info)) handle = dlopen(info.dli_fname, RTLD_NOW);
    return handle;
}

CUresult cuGetProcAddress_v2(
    const char *name, void **function, int version, cuuint64_t flags,
    CUdriverProcAddressQueryResult *status) {
    static const char *suffixes[] = {"_v4", "_v3", "_v2", ""};
    char full[128];
    (void)version;
    (void)flags;
    *function = NULL;
    for (int i = 0; i < 4 && !*function; i++) {
        snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
        *function = dlsym(self(), full);
    }
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

#undef cuGetProcAddress
CUresult cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
