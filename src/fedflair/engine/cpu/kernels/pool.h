/* Normalisation, ReLU and max-pooling (3 x 3, stride 2, padding 1) in one; included by exported.c once for each type.

   forward   y = the largest of relu(scale * x + shift) in each window, and which of the window's nine pixels it was
   backward  from dy: dx and the sums that make the gradients of gamma and beta. What is normalised is never stored. */

#define SIDE 3
#define NO_WINNER (SIDE * SIDE)

/* The window's first and last row (or column) that lie in the image; windows begin one before twice their index. */
#define FIRST(window) ((window) == 0 ? 1 : 0)
#define LAST(window, size) (2 * (window) + 1 < (size) ? SIDE - 1 : SIDE - 2)

/* rows: 1 where mean and rstd are the same for all images, [channels], else [images][channels]. y and winners: written,
   [images][(height + 1) / 2][(width + 1) / 2][channels]; a winner is 0 to 8, or 9 where nothing is above 0. */
void NAME(normalise_and_pool)(const ELEMENT *x, ELEMENT *y, uint8_t *winners, const float *mean, const float *rstd,
                              const float *gamma, const float *beta, int64_t images, int64_t height, int64_t width,
                              int64_t channels, int64_t rows) {
  float scale[MAX_CHANNELS], shift[MAX_CHANNELS];
  int64_t up = (height + 1) / 2, across = (width + 1) / 2;
  for (int64_t n = 0; n < images; n++) {
    int64_t own = rows == 1 ? 0 : n * channels;
    const ELEMENT *image = x + n * height * width * channels;
    scale_and_shift(gamma, beta, mean + own, rstd + own, channels, scale, shift);
    for (int64_t i = 0; i < up; i++) {
      for (int64_t j = 0; j < across; j++) {
        int64_t corner = ((2 * i - 1) * width + 2 * j - 1) * channels;
        int64_t at = ((n * up + i) * across + j) * channels;
        for (int64_t c = 0; c < channels; c += LANES) {
          floats a = load_float(scale + c), b = load_float(shift + c), best = {};
          masks winner = NO_WINNER - (masks){};
          for (int k = FIRST(i); k <= LAST(i, height); k++)
            for (int l = FIRST(j); l <= LAST(j, width); l++) {
              floats v = LOAD(image + corner + (k * width + l) * channels + c) * a + b;
              /* Written so that a value that is not a number wins, and keeps it. */
              masks wins = (v > best) | (v != v);
              best = where(wins, v) + where(~wins, best);
              winner = (wins & (SIDE * k + l)) | (~wins & winner);
            }
          STORE(y + at + c, best);
          store_bytes(winners + at + c, winner);
        }
      }
    }
  }
}

/* The gradient before the pooling, of LANES channels of one row of pixels: what windows of one row gave to their pixels in
   row `place` of three. Added up over the one or two rows of windows that the row lies in. */
static inline void NAME(add_won)(const ELEMENT *dy, const uint8_t *winners, int64_t place, int64_t width,
                                 int64_t channels, float *sums) {
  int64_t across = (width + 1) / 2;
  int32_t first = (int32_t)(SIDE * place);
  masks winner = load_bytes(winners);
  floats v = LOAD(dy);
  for (int64_t j = 0; j < across; j++) {
    /* The second pixel is also the first one of the next window. */
    int more = j + 1 < across;
    masks next = more ? load_bytes(winners + (j + 1) * channels) : NO_WINNER - (masks){};
    floats after = more ? LOAD(dy + (j + 1) * channels) : (floats){};
    float *even = sums + 2 * j * LANES, *odd = even + LANES;
    store_float(even, load_float(even) + where(winner == first + 1, v));
    store_float(odd, load_float(odd) + where(winner == first + 2, v) + where(next == first, after));
    winner = next;
    v = after;
  }
}

/* Adds one row of windows of one image to each channel's sum of the gradient and of the gradient times x - mean. */
static void NAME(add_row)(const ELEMENT *dy, const uint8_t *winners, const ELEMENT *x, const float *mean, int64_t i,
                          int64_t height, int64_t width, int64_t channels, double *sums, double *products) {
  int64_t across = (width + 1) / 2, below = 2 * i + 1 < height ? 2 * i + 1 : 2 * i;
  const ELEMENT *lines[SIDE] = {x + (i ? 2 * i - 1 : 0) * width * channels, x + 2 * i * width * channels,
                                x + below * width * channels};
  for (int64_t c = 0; c < channels; c += LANES) {
    floats s = {}, q = {}, middle = load_float(mean + c);
    for (int64_t j = 0; j < across; j++) {
      int64_t at = (i * across + j) * channels + c;
      masks winner = load_bytes(winners + at);
      floats g = where(winner != NO_WINNER, LOAD(dy + at)), v = {};
      /* Pixels off the edge did not win: their place may be read from any other. */
      int64_t columns[SIDE] = {j ? 2 * j - 1 : 0, 2 * j, 2 * j + 1 < width ? 2 * j + 1 : 2 * j};
#pragma GCC unroll 3
      for (int k = 0; k < SIDE; k++)
#pragma GCC unroll 3
        for (int l = 0; l < SIDE; l++)
          v += where(winner == SIDE * k + l, LOAD(lines[k] + columns[l] * channels + c));
      s += g;
      q += g * (v - middle);
    }
    for (int k = 0; k < LANES; k++) {
      sums[c + k] += s[k];
      products[c + k] += q[k];
    }
  }
}

/* dgamma, dbeta: [channels], overwritten. groups: 0 where mean and rstd are constants. */
void NAME(normalise_and_pool_backward)(const ELEMENT *dy, const uint8_t *winners, const ELEMENT *x, ELEMENT *dx,
                                       float *dgamma, float *dbeta, const float *mean, const float *rstd,
                                       const float *gamma, const float *beta, int64_t images, int64_t height,
                                       int64_t width, int64_t channels, int64_t rows, int64_t groups) {
  float scale[MAX_CHANNELS], shift[MAX_CHANNELS], slope[MAX_CHANNELS], offset[MAX_CHANNELS];
  double dgammas[MAX_CHANNELS] = {0}, dbetas[MAX_CHANNELS] = {0};
  int64_t up = (height + 1) / 2, across = (width + 1) / 2;
  float won[2 * across * LANES];
  for (int64_t n = 0; n < images; n++) {
    double sums[MAX_CHANNELS] = {0}, products[MAX_CHANNELS] = {0};
    const float *m = mean + (rows == 1 ? 0 : n * channels), *r = rstd + (rows == 1 ? 0 : n * channels);
    int64_t first = n * height * width * channels, pooled = n * up * across * channels;
    for (int64_t i = 0; i < up; i++)
      NAME(add_row)(dy + pooled, winners + pooled, x + first, m, i, height, width, channels, sums, products);
    for (int64_t c = 0; c < channels; c++) {
      dgammas[c] += products[c] * r[c];
      dbetas[c] += sums[c];
    }
    scale_and_shift(gamma, beta, m, r, channels, scale, shift);
    slope_and_offset(gamma, m, r, sums, products, height * width, channels, groups, slope, offset);
    for (int64_t i = 0; i < height; i++)
      for (int64_t c = 0; c < channels; c += LANES) {
        /* Even rows lie in one row of windows, as the middle; odd ones in two, as the last and as the first. */
        int64_t window = pooled + i / 2 * across * channels + c, next = window + across * channels;
        floats a = load_float(scale + c), b = load_float(slope + c), d = load_float(offset + c);
        memset(won, 0, 2 * across * LANES * sizeof *won);
        NAME(add_won)(dy + window, winners + window, 1 + i % 2, width, channels, won);
        if (i % 2 && i / 2 + 1 < up) NAME(add_won)(dy + next, winners + next, 0, width, channels, won);
        for (int64_t j = 0; j < width; j++) {
          int64_t at = first + (i * width + j) * channels + c;
          STORE(dx + at, a * load_float(won + j * LANES) + b * LOAD(x + at) + d);
        }
      }
  }
  for (int64_t c = 0; c < channels; c++) {
    dgamma[c] = (float)dgammas[c];
    dbeta[c] = (float)dbetas[c];
  }
}

#undef SIDE
#undef NO_WINNER
#undef FIRST
#undef LAST
