/* The passes over memory that a local step needs and that torch has no fast operator for, one call each.

   Activations lie channels-last, [images][pixels][channels], as float or as bfloat16; whatever is computed is computed in
   float. `channels` is a multiple of 16. Compiled once on the machine it runs on, for that machine; see __init__.py.
   Every sum is taken in a fixed order, so equal inputs give equal bits. One thread a call. */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Numbers in a vector, and rows of products that fill the registers, of which there are 32 or else 16. The number of
   lanes also decides in what order sums are taken. */
#ifdef __AVX512F__
#define LANES 16
#define TILE_ROWS 8
#define STRIP 12
#else
#define LANES 8
#define TILE_ROWS 4
#define STRIP 6
#endif

typedef float floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t words __attribute__((vector_size(LANES * 4)));
typedef int32_t masks __attribute__((vector_size(LANES * 4)));
typedef uint16_t halves __attribute__((vector_size(LANES * 2)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));
typedef uint16_t bf16;

static inline floats load_float(const float *p) {
  floats v;
  memcpy(&v, p, sizeof v);
  return v;
}

static inline void store_float(float *p, floats v) { memcpy(p, &v, sizeof v); }

static inline floats load_bf16(const bf16 *p) {
  halves h;
  memcpy(&h, p, sizeof h);
  words w = __builtin_convertvector(h, words) << 16;
  floats v;
  memcpy(&v, &w, sizeof v);
  return v;
}

#ifdef __AVX512BF16__
#include <immintrin.h>
static inline void store_bf16(bf16 *p, floats v) {
  __m512 f;
  memcpy(&f, &v, sizeof f);
  __m256bh h = _mm512_cvtneps_pbh(f);
  memcpy(p, &h, sizeof h);
}
#else
/* Round to nearest, ties to even; not a number stays so. */
static inline void store_bf16(bf16 *p, floats v) {
  words w;
  memcpy(&w, &v, sizeof w);
  masks nan = v != v;
  words rounded = w + 0x7fff + ((w >> 16) & 1);
  words chosen = (rounded & ~(words)nan) | ((w | 0x400000) & (words)nan);
  halves h = __builtin_convertvector(chosen >> 16, halves);
  memcpy(p, &h, sizeof h);
}
#endif

static inline floats splat(float value) { return value - (floats){}; }

static inline floats where(masks condition, floats value) {
  masks bits;
  memcpy(&bits, &value, sizeof bits);
  bits &= condition;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline masks load_bytes(const uint8_t *p) {
  bytes b;
  memcpy(&b, p, sizeof b);
  return __builtin_convertvector(b, masks);
}

static inline void store_bytes(uint8_t *p, masks v) {
  bytes b = __builtin_convertvector(v, bytes);
  memcpy(p, &b, sizeof b);
}

/* Pixels whose float sums are added up before they join the double ones. */
#define CHUNK 128
#define MAX_CHANNELS 8192

/* Normalisation of one image is scale * x + shift. */
static void scale_and_shift(const float *gamma, const float *beta, const float *mean, const float *rstd,
                            int64_t channels, float *scale, float *shift) {
  for (int64_t c = 0; c < channels; c++) {
    scale[c] = gamma[c] * rstd[c];
    shift[c] = beta[c] - mean[c] * scale[c];
  }
}

/* What mean and variance pass on to the gradient of one image's x, slope * x + offset; 0 where they are constants, groups 0.
   sums, products: of a channel's gradient, and of it times x - mean. */
static void slope_and_offset(const float *gamma, const float *mean, const float *rstd, const double *sums,
                             const double *products, int64_t pixels, int64_t channels, int64_t groups, float *slope,
                             float *offset) {
  if (!groups) memset(slope, 0, channels * sizeof *slope), memset(offset, 0, channels * sizeof *offset);
  int64_t width = groups ? channels / groups : 0;
  for (int64_t g = 0; g < groups; g++) {
    double count = (double)width * pixels, sum = 0, product = 0;
    int64_t from = g * width;
    for (int64_t c = from; c < from + width; c++) {
      sum += gamma[c] * sums[c];
      product += gamma[c] * products[c];
    }
    double one = rstd[from], k = -product * one * one * one / count;
    for (int64_t c = from; c < from + width; c++) {
      slope[c] = (float)k;
      offset[c] = (float)(-k * mean[from] - sum * one / count);
    }
  }
}

#define ELEMENT float
#define LOAD load_float
#define STORE store_float
#define NAME(x) x##_float
#include "norm.h"
#include "pool.h"
#include "channelwise.h"
#undef ELEMENT
#undef LOAD
#undef STORE
#undef NAME

#define ELEMENT bf16
#define LOAD load_bf16
#define STORE store_bf16
#define NAME(x) x##_bf16
#include "norm.h"
#include "pool.h"
#include "channelwise.h"
#undef ELEMENT
#undef LOAD
#undef STORE
#undef NAME

/* copy[i] = source[i], rounded[i] = bfloat16 of it. */
void copy_and_round(const float *source, float *copy, bf16 *rounded, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    floats v = load_float(source + i);
    store_float(copy + i, v);
    store_bf16(rounded + i, v);
  }
  if (i < count) {
    float rest[LANES] = {0};
    bf16 short_rest[LANES];
    memcpy(rest, source + i, (count - i) * sizeof(float));
    store_bf16(short_rest, load_float(rest));
    memcpy(copy + i, rest, (count - i) * sizeof(float));
    memcpy(rounded + i, short_rest, (count - i) * sizeof(bf16));
  }
}

/* parameters -= rate * gradients; rounded (may be null) = bfloat16 of the result. */
void descend(float *parameters, const float *gradients, bf16 *rounded, float rate, int64_t count) {
  int64_t i = 0;
  floats r = splat(rate);
  if (rounded) {
    for (; i + LANES <= count; i += LANES) {
      floats v = load_float(parameters + i) - r * load_float(gradients + i);
      store_float(parameters + i, v);
      store_bf16(rounded + i, v);
    }
  }
  for (; i + LANES <= count; i += LANES)
    store_float(parameters + i, load_float(parameters + i) - r * load_float(gradients + i));
  for (; i < count; i++) {
    parameters[i] -= rate * gradients[i];
    if (rounded) {
      bf16 one[LANES];
      store_bf16(one, splat(parameters[i]));
      rounded[i] = one[0];
    }
  }
}

/* x * scale, cut towards zero to whole numbers (of which none is above 2^24), times grid. */
void scale_onto_grid(float *x, float scale, float grid, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] = (float)(int32_t)(x[i] * scale) * grid;
}

/* Sum of squares in double, in a fixed order. */
double sum_of_squares(const float *values, int64_t count) {
  double lanes[4 * LANES] = {0}, total = 0;
  int64_t i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES)
    for (int k = 0; k < 4 * LANES; k++) lanes[k] += (double)values[i + k] * values[i + k];
  for (; i < count; i++) total += (double)values[i] * values[i];
  for (int k = 0; k < 4 * LANES; k++) total += lanes[k];
  return total;
}

#define TILE_VECTORS 3
#define TILE_WIDTH (TILE_VECTORS * LANES)

/* gradient [channels][width] = transposed dy [rows][channels] times patches [rows][width]; channels a multiple of 8,
   width of 48. panel: scratch, [rows][48]; dys: scratch, [rows][channels]. */
void product_of_rows(const float *dy, const float *patches, float *gradient, float *panel, float *dys, int64_t rows,
                     int64_t channels, int64_t width) {
  /* Tiles of dy one after the other, so that the innermost loop reads both factors in order. */
  for (int64_t c = 0; c < channels; c += TILE_ROWS)
    for (int64_t r = 0; r < rows; r++)
      memcpy(dys + c * rows + r * TILE_ROWS, dy + r * channels + c, TILE_ROWS * sizeof(float));
  for (int64_t w = 0; w < width; w += TILE_WIDTH) {
    for (int64_t r = 0; r < rows; r++)
      memcpy(panel + r * TILE_WIDTH, patches + r * width + w, TILE_WIDTH * sizeof(float));
    for (int64_t c = 0; c < channels; c += TILE_ROWS) {
      const float *left = dys + c * rows, *right = panel;
      floats sums[TILE_ROWS][TILE_VECTORS] = {0};
      for (int64_t r = 0; r < rows; r++, left += TILE_ROWS, right += TILE_WIDTH) {
        floats values[TILE_VECTORS];
#pragma GCC unroll 3
        for (int v = 0; v < TILE_VECTORS; v++) values[v] = load_float(right + v * LANES);
#pragma GCC unroll 8
        for (int k = 0; k < TILE_ROWS; k++)
#pragma GCC unroll 3
          for (int v = 0; v < TILE_VECTORS; v++) sums[k][v] += left[k] * values[v];
      }
      for (int k = 0; k < TILE_ROWS; k++)
        for (int v = 0; v < TILE_VECTORS; v++) store_float(gradient + (c + k) * width + w + v * LANES, sums[k][v]);
    }
  }
}

#include "winograd_tiles.h"

/* The number at p in every lane, bit for bit. */
static inline floats spread(const float *p) {
  uint32_t bits;
  memcpy(&bits, p, sizeof bits);
  words w = bits - (words){};
  floats v;
  memcpy(&v, &w, sizeof v);
  return v;
}

#define ELEMENT float
#define LOAD load_float
#define STORE store_float
#define NAME(x) x##_float
#define PER 1
#define ALONG(values, p) values[0][p]
#define ACROSS(values, p) values[0][p]
#define ADD_PRODUCT(sum, left, right) ((sum) + (left) * (right))
#include "winograd.h"
#undef ELEMENT
#undef LOAD
#undef STORE
#undef NAME
#undef PER
#undef ALONG
#undef ACROSS
#undef ADD_PRODUCT

#ifdef __AVX512BF16__
static inline floats along(floats first, floats second) {
  __m512 a, b;
  memcpy(&a, &first, sizeof a);
  memcpy(&b, &second, sizeof b);
  __m512bh h = _mm512_cvtne2ps_pbh(b, a);
  floats v;
  memcpy(&v, &h, sizeof v);
  return v;
}

static inline floats across(floats first, floats second) {
  bf16 low[LANES], high[LANES];
  store_bf16(low, first);
  store_bf16(high, second);
  halves l, h;
  memcpy(&l, low, sizeof l);
  memcpy(&h, high, sizeof h);
  words w = __builtin_convertvector(l, words) | __builtin_convertvector(h, words) << 16;
  floats v;
  memcpy(&v, &w, sizeof v);
  return v;
}

static inline floats add_pairs(floats sum, floats left, floats right) {
  __m512 s;
  __m512bh l, r;
  memcpy(&s, &sum, sizeof s);
  memcpy(&l, &left, sizeof l);
  memcpy(&r, &right, sizeof r);
  s = _mm512_dpbf16_ps(s, l, r);
  memcpy(&sum, &s, sizeof s);
  return sum;
}

#define ELEMENT bf16
#define LOAD load_bf16
#define STORE store_bf16
#define NAME(x) x##_bf16
#define PER 2
#define ALONG(values, p) along(values[0][p], values[1][p])
#define ACROSS(values, p) across(values[0][p], values[1][p])
#define ADD_PRODUCT add_pairs
#include "winograd.h"
#endif
