/* Sums over the cells of a plane of a frame, for plane_sums.py, which explains them.
 *
 * `python -m tools.compile_kernels` writes plane_sums.ptx, which the driver of any GPU compiles; so
 * users need no CUDA compiler. No thread waits for another, so that the order does not matter, and
 * sums are integers, so that it does not matter for the bits either.
 */

struct PlaneCells {
    unsigned long long pixels;     /* address of the first entry */
    unsigned long long sums;       /* address of one sum for each cell, 0 at the start */
    long long is_float;            /* whether entries are float32 in [0,1] instead of uint8 */
    long long row_stride;          /* distance of neighbours in a column, in entries */
    long long column_stride;       /* distance of neighbours in a row, in entries */
    long long rows, columns;       /* number of cells */
    long long height, width;       /* size of a cell in pixels */
};

#define LARGEST_STEP 16.0f

/* Floats are rounded to this share of an 8-bit level, so that sums are integers. */
#define FIXED_POINT 1048576.0f

static __device__ float level(const PlaneCells &cells, long long y, long long x) {
    long long at = y * cells.row_stride + x * cells.column_stride;
    /* Frames in GPU memory are not checked: what is not a number counts as black. */
    if (cells.is_float) return 255.0f * fminf(fmaxf(((const float *)cells.pixels)[at], 0.0f), 1.0f);
    return (float)((const unsigned char *)cells.pixels)[at];
}

static __device__ unsigned long long rounded(const PlaneCells &cells, float value) {
    return (unsigned long long)(cells.is_float ? value * FIXED_POINT + 0.5f : value);
}

static __device__ unsigned long long step(
    const PlaneCells &cells, long long y, long long x, long long before_y, long long before_x) {
    float difference = level(cells, y, x) - level(cells, before_y, before_x);
    return rounded(cells, fminf(fabsf(difference), LARGEST_STEP));
}

static __device__ void add(const PlaneCells &cells, long long cell, unsigned long long sum) {
    atomicAdd((unsigned long long *)cells.sums + cell, sum);
}

/* Sums of levels. A thread adds up one row of one cell. */
extern "C" __global__ void sum_levels(const PlaneCells cells) {
    long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= cells.rows * cells.height * cells.columns) return;
    long long y = thread / cells.columns, column = thread % cells.columns;
    unsigned long long sum = 0;
    for (long long x = column * cells.width; x < (column + 1) * cells.width; x++)
        sum += rounded(cells, level(cells, y, x));
    add(cells, y / cells.height * cells.columns + column, sum);
}

/* Sums of steps between neighbours along every fourth row and column; height and width are multiples
 * of four. A thread adds up one such row or column of one cell. */
extern "C" __global__ void sum_steps(const PlaneCells cells) {
    long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    long long along_rows = cells.rows * cells.height / 4 * cells.columns;
    long long along_columns = cells.columns * cells.width / 4 * cells.rows;
    unsigned long long sum = 0;
    if (thread < along_rows) {
        long long y = thread / cells.columns * 4, column = thread % cells.columns;
        for (long long x = column * cells.width; x < (column + 1) * cells.width; x++)
            if (x > 0) sum += step(cells, y, x, y, x - 1);
        add(cells, y / cells.height * cells.columns + column, sum);
    } else if (thread < along_rows + along_columns) {
        thread -= along_rows;
        long long row = thread / (cells.columns * cells.width / 4);
        long long x = thread % (cells.columns * cells.width / 4) * 4;
        for (long long y = row * cells.height; y < (row + 1) * cells.height; y++)
            if (y > 0) sum += step(cells, y, x, y - 1, x);
        add(cells, row * cells.columns + x / cells.width, sum);
    }
}
