/* Convolutions whose outputs each see one channel: their weights' gradient, for one element type as norm.h.

   dw [channels][kernel_height][kernel_width], in float, is overwritten. x [images][height][width][channels], dy
   [images][rows][columns][channels]. */

/* Pixels of a row of outputs whose input `offset` further lies inside: from *first to before *end. */
static inline void NAME(inside)(int64_t offset, int64_t stride, int64_t width, int64_t columns, int64_t *first,
                                int64_t *end) {
  *first = offset < 0 ? (-offset + stride - 1) / stride : 0;
  int64_t last = width - 1 - offset;
  *end = last < 0 ? 0 : last / stride + 1;
  if (*end > columns) *end = columns;
}

/* totals [vectors * LANES] += products of one row of outputs with the inputs `stride` pixels apart. */
static inline __attribute__((always_inline)) void NAME(row_of_products)(const ELEMENT *dy, const ELEMENT *x,
                                                                        int64_t count, int64_t channels,
                                                                        int64_t stride, double *totals,
                                                                        const int vectors) {
  floats sums[4] = {0};
  for (int64_t p = 0; p < count; p++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
      sums[v] += LOAD(dy + p * channels + v * LANES) * LOAD(x + p * stride * channels + v * LANES);
  for (int v = 0; v < vectors; v++)
    for (int k = 0; k < LANES; k++) totals[v * LANES + k] += sums[v][k];
}

void NAME(channelwise_weight_gradient)(const ELEMENT *x, const ELEMENT *dy, float *dw, int64_t images, int64_t height,
                                       int64_t width, int64_t channels, int64_t rows, int64_t columns,
                                       int64_t kernel_height, int64_t kernel_width, int64_t row_stride,
                                       int64_t column_stride, int64_t row_padding, int64_t column_padding) {
  int64_t taps = kernel_height * kernel_width;
  double totals[taps][4 * LANES];
  for (int64_t c = 0; c < channels;) {
    int vectors = c + 4 * LANES <= channels ? 4 : 1;
    memset(totals, 0, sizeof totals);
    for (int64_t n = 0; n < images; n++)
      for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < kernel_height; i++) {
          int64_t above = r * row_stride + i - row_padding;
          if (above < 0 || above >= height) continue;
          for (int64_t j = 0; j < kernel_width; j++) {
            int64_t offset = j - column_padding, first, end;
            NAME(inside)(offset, column_stride, width, columns, &first, &end);
            const ELEMENT *left = dy + ((n * rows + r) * columns + first) * channels + c;
            const ELEMENT *right = x + ((n * height + above) * width + first * column_stride + offset) * channels + c;
            double *sums = totals[i * kernel_width + j];
            if (vectors == 4)
              NAME(row_of_products)(left, right, end - first, channels, column_stride, sums, 4);
            else
              NAME(row_of_products)(left, right, end - first, channels, column_stride, sums, 1);
          }
        }
    for (int64_t t = 0; t < taps; t++)
      for (int k = 0; k < vectors * LANES; k++) dw[(c + k) * taps + t] = (float)totals[t][k];
    c += vectors * LANES;
  }
}
