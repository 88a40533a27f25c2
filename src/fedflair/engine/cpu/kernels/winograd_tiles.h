/* Convolutions of 3 x 3 weights, stride 1 and padding 1, by Winograd's minimal filtering F(2 x 2, 3 x 3): 16 products for
   4 outputs in place of 36. A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", 2016.

   Images are cut into tiles of 2 x 2 outputs, which see 4 x 4 inputs. With the matrices A, B, G of that paper,
   y = A' [sum over channels of (G w G') * (B' x B)] A, and its gradients follow by transposition. Each of the 16 points
   is a matrix product, over channels or, towards the weights, over tiles. Channels are multiples of 32.

   This is what does not depend on the type of the elements; see winograd.h for the rest. */

#define POINTS 16
#define PANEL (2 * LANES)

/* Floats from the numbers of one point to those of the next: not a power of two, which would crowd the caches' sets. */
static inline int64_t weights_point(int64_t outputs, int64_t inputs) { return outputs * inputs + LANES; }

/* Tiles worked on at once: what they need should stay in the second-level cache where channels are few, and be worth
   another pass over the weights where they are many. Multiples of STRIP. */
static int64_t tiles_at_once(int64_t channels, int64_t tiles) {
  int64_t most = channels <= 128 ? 60 : channels <= 256 ? 96 : 480;
  int64_t all = (tiles + STRIP - 1) / STRIP * STRIP;
  return all < most ? all : most;
}

/* Floats of scratch that the functions of winograd.h need: for tiles, and for points of weights, of all of them where
   tiles take several passes. */
int64_t winograd_scratch(int64_t images, int64_t height, int64_t width, int64_t in_channels, int64_t out_channels) {
  int64_t tiles = images * ((height + 1) / 2) * ((width + 1) / 2), channels = in_channels + out_channels;
  int64_t most = tiles_at_once(channels, tiles), widest = in_channels > out_channels ? in_channels : out_channels;
  int64_t weights = tiles > most ? in_channels * out_channels + widest * LANES : PANEL * widest + LANES;
  return POINTS * (most * (channels + 2 * LANES) + weights);
}

typedef struct {
  int64_t image, row, column;
} tile_place;

static inline tile_place place_of(int64_t tile, int64_t tile_rows, int64_t tile_columns) {
  int64_t line = tile / tile_columns;
  return (tile_place){line / tile_rows, line % tile_rows * 2, tile % tile_columns * 2};
}

#if LANES == 16
#define LOW_PAIRS 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_PAIRS 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#else
#define LOW_PAIRS 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_PAIRS 4, 12, 5, 13, 6, 14, 7, 15
#endif

static inline __attribute__((always_inline)) void interleave(const floats from[LANES], floats to[LANES]) {
#pragma GCC unroll 8
  for (int i = 0; i < LANES / 2; i++) {
    to[2 * i] = __builtin_shufflevector(from[i], from[i + LANES / 2], LOW_PAIRS);
    to[2 * i + 1] = __builtin_shufflevector(from[i], from[i + LANES / 2], HIGH_PAIRS);
  }
}

/* Transposes LANES x LANES floats: interleaving rows i and i + LANES / 2 as often as LANES has halves. */
static inline void transpose(floats block[LANES]) {
  floats other[LANES];
  interleave(block, other);
  interleave(other, block);
  interleave(block, other);
  if (LANES == 16)
    interleave(other, block);
  else
    memcpy(block, other, sizeof other);
}

/* G' p G of `count` input channels of one output: points, numbers of the next one `point` later, to dw [3][3][inputs]. */
static inline void weights_of_points(const float *points, int64_t point, float *dw, int64_t inputs, int64_t count) {
  for (int64_t c = 0; c < count; c += LANES) {
    floats t[3][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      floats d[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) d[i] = load_float(points + (4 * i + j) * point + c);
      floats sum = (d[1] + d[2]) * 0.5f;
      t[0][j] = d[0] + sum;
      t[1][j] = (d[1] - d[2]) * 0.5f;
      t[2][j] = sum + d[3];
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) {
      float *out = dw + 3 * i * inputs + c;
      floats sum = (t[i][1] + t[i][2]) * 0.5f;
      store_float(out, t[i][0] + sum);
      store_float(out + inputs, (t[i][1] - t[i][2]) * 0.5f);
      store_float(out + 2 * inputs, sum + t[i][3]);
    }
  }
}
