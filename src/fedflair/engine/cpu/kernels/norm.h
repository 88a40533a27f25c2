/* Normalisation of one element type; included by exported.c once for float and once for bfloat16.

   forward   y = relu(scale * x + shift + skip), with scale = gamma * rstd and shift = beta - mean * scale for each image
             and channel; relu and skip are optional. relu: 0 none, 1, or 2 where it also ends at 6.
   backward  from dy: dx, the gradient of skip, and the sums that make the gradients of gamma and beta. */

/* Sum and sum of squares about `centre` of each channel of one image, in double. */
static void NAME(moments)(const ELEMENT *x, int64_t pixels, int64_t channels, const float *centre, double *sums,
                          double *squares) {
  for (int64_t c = 0; c < channels; c += LANES) {
    floats middle = load_float(centre + c);
    double total[LANES] = {0}, square[LANES] = {0};
    for (int64_t start = 0; start < pixels; start += CHUNK) {
      int64_t end = start + CHUNK < pixels ? start + CHUNK : pixels;
      floats s = {}, q = {};
      for (int64_t p = start; p < end; p++) {
        floats v = LOAD(x + p * channels + c) - middle;
        s += v;
        q += v * v;
      }
      for (int k = 0; k < LANES; k++) {
        total[k] += s[k];
        square[k] += q[k];
      }
    }
    memcpy(sums + c, total, sizeof total);
    memcpy(squares + c, square, sizeof square);
  }
}

/* mean, rstd: [images][channels], written; every channel of a group gets its group's. */
void NAME(group_statistics)(const ELEMENT *x, float *mean, float *rstd, int64_t images, int64_t pixels,
                            int64_t channels, int64_t groups, double eps) {
  double sums[MAX_CHANNELS], squares[MAX_CHANNELS];
  float centre[MAX_CHANNELS];
  int64_t width = channels / groups;
  for (int64_t n = 0; n < images; n++) {
    const ELEMENT *image = x + n * pixels * channels;
    /* Squares are taken about the first pixel's value, so that a large mean does not cancel a small variance. */
    for (int64_t c = 0; c < channels; c += LANES) store_float(centre + c, LOAD(image + c));
    NAME(moments)(image, pixels, channels, centre, sums, squares);
    for (int64_t g = 0; g < groups; g++) {
      double count = (double)width * pixels, first = centre[g * width], sum = 0, square = 0;
      for (int64_t c = g * width; c < (g + 1) * width; c++) {
        double off = centre[c] - first;
        sum += sums[c] + pixels * off;
        square += squares[c] + 2 * off * sums[c] + pixels * off * off;
      }
      double average = sum / count, variance = square / count - average * average;
      float r = (float)(1.0 / sqrt((variance > 0 ? variance : 0) + eps));
      for (int64_t c = g * width; c < (g + 1) * width; c++) {
        mean[n * channels + c] = (float)(first + average);
        rstd[n * channels + c] = r;
      }
    }
  }
}

/* rows: 1 where mean and rstd are the same for all images, [channels], else [images][channels]. skip may be null. */
void NAME(normalise)(const ELEMENT *x, const ELEMENT *skip, ELEMENT *y, const float *mean, const float *rstd,
                     const float *gamma, const float *beta, int64_t images, int64_t pixels, int64_t channels,
                     int64_t rows, int relu) {
  float scale[MAX_CHANNELS], shift[MAX_CHANNELS];
  floats least = splat(relu ? 0.0f : -INFINITY), most = splat(6.0f);
  for (int64_t n = 0; n < images; n++) {
    const float *m = mean + (rows == 1 ? 0 : n * channels), *r = rstd + (rows == 1 ? 0 : n * channels);
    scale_and_shift(gamma, beta, m, r, channels, scale, shift);
    for (int64_t p = 0; p < pixels; p++) {
      int64_t at = (n * pixels + p) * channels;
      for (int64_t c = 0; c < channels; c += LANES) {
        floats v = LOAD(x + at + c) * load_float(scale + c) + load_float(shift + c);
        if (skip) v += LOAD(skip + at + c);
        /* Written so that a value that is not a number passes through. */
        v = where(~(v <= least), v) + where(v <= least, least);
        if (relu == 2) v = where(~(v >= most), v) + where(v >= most, most);
        STORE(y + at + c, v);
      }
    }
  }
}

/* The gradient before the ReLU: dy where the output was positive, and below 6 where it ends there. Without a skip the output is recomputed from x. */
static inline floats NAME(masked)(const ELEMENT *dy, const ELEMENT *y, floats x, floats scale, floats shift, int relu) {
  floats v = LOAD(dy);
  if (!relu) return v;
  floats out = y ? LOAD(y) : x * scale + shift;
  return relu == 2 ? where((out > 0) & (out < 6), v) : where(out > 0, v);
}

/* dgamma, dbeta: [channels], overwritten. dskip: null without a skip, else the gradient of it. y: the output, needed
   only with relu and a skip. groups: 0 where mean and rstd are constants. */
void NAME(normalise_backward)(const ELEMENT *dy, const ELEMENT *y, const ELEMENT *x, ELEMENT *dx, ELEMENT *dskip,
                              float *dgamma, float *dbeta, const float *mean, const float *rstd, const float *gamma,
                              const float *beta, int64_t images, int64_t pixels, int64_t channels, int64_t rows,
                              int64_t groups, int relu) {
  float scale[MAX_CHANNELS], shift[MAX_CHANNELS], slope[MAX_CHANNELS], offset[MAX_CHANNELS];
  double sums[MAX_CHANNELS], products[MAX_CHANNELS], dgammas[MAX_CHANNELS] = {0}, dbetas[MAX_CHANNELS] = {0};
  for (int64_t n = 0; n < images; n++) {
    const float *m = mean + (rows == 1 ? 0 : n * channels), *r = rstd + (rows == 1 ? 0 : n * channels);
    int64_t first = n * pixels * channels;
    scale_and_shift(gamma, beta, m, r, channels, scale, shift);
    for (int64_t c = 0; c < channels; c += LANES) {
      floats a = load_float(scale + c), b = load_float(shift + c), middle = load_float(m + c);
      double sum[LANES] = {0}, product[LANES] = {0};
      for (int64_t start = 0; start < pixels; start += CHUNK) {
        int64_t end = start + CHUNK < pixels ? start + CHUNK : pixels;
        floats s = {}, q = {};
        for (int64_t p = start; p < end; p++) {
          int64_t at = first + p * channels + c;
          floats v = LOAD(x + at), g = NAME(masked)(dy + at, y ? y + at : y, v, a, b, relu);
          s += g;
          q += g * (v - middle);
        }
        for (int k = 0; k < LANES; k++) {
          sum[k] += s[k];
          product[k] += q[k];
        }
      }
      memcpy(sums + c, sum, sizeof sum);
      memcpy(products + c, product, sizeof product);
    }
    for (int64_t c = 0; c < channels; c++) {
      dgammas[c] += products[c] * r[c];
      dbetas[c] += sums[c];
    }
    /* dx = scale * g + slope * x + offset */
    slope_and_offset(gamma, m, r, sums, products, pixels, channels, groups, slope, offset);
    for (int64_t p = 0; p < pixels; p++) {
      for (int64_t c = 0; c < channels; c += LANES) {
        int64_t at = first + p * channels + c;
        floats a = load_float(scale + c), v = LOAD(x + at);
        floats g = NAME(masked)(dy + at, y ? y + at : y, v, a, load_float(shift + c), relu);
        if (dskip) STORE(dskip + at, g);
        STORE(dx + at, a * g + load_float(slope + c) * v + load_float(offset + c));
      }
    }
  }
  for (int64_t c = 0; c < channels; c++) {
    dgamma[c] = (float)dgammas[c];
    dbeta[c] = (float)dbetas[c];
  }
}
