/* Convolutions of 3 x 3 weights, stride 1 and padding 1, in float32 and by Winograd's minimal filtering F(2 x 2, 3 x 3):
   16 products for 4 outputs in place of 36. A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", 2016.

   Images are cut into tiles of 2 x 2 outputs, which see 4 x 4 inputs. With the matrices A, B, G of that paper,
   y = A' [sum over channels of (G w G') * (B' x B)] A, and its gradients follow by transposition. Each of the 16
   products is a matrix product over channels or, towards the weights, over tiles. Channels are multiples of 32. */

#define POINTS 16
#define PANEL 32
#define STRIP 12

/* Floats from the numbers of one point to those of the next: not a power of two, which would crowd the caches' sets. */
static inline int64_t weights_point(int64_t outputs, int64_t inputs) { return outputs * inputs + LANES; }

/* Tiles worked on at once: what they need should stay in the second-level cache where channels are few, and be worth
   another pass over the weights where they are many. Multiples of STRIP. */
static int64_t tiles_at_once(int64_t channels, int64_t tiles) {
  int64_t most = channels <= 128 ? 60 : channels <= 256 ? 96 : 480;
  int64_t all = (tiles + STRIP - 1) / STRIP * STRIP;
  return all < most ? all : most;
}

/* Floats of scratch that the functions below need, beside POINTS * weights_point for weights. */
int64_t winograd_scratch(int64_t images, int64_t height, int64_t width, int64_t in_channels, int64_t out_channels) {
  int64_t tiles = images * ((height + 1) / 2) * ((width + 1) / 2);
  return POINTS * tiles_at_once(in_channels + out_channels, tiles) * (in_channels + out_channels + 2 * LANES);
}

/* out[i][j] (+)= sum over r of left[i * left_row + r * left_step] * right[r * right_step + j], j below 32. */
static inline __attribute__((always_inline)) void product_tile(const float *left, int64_t left_row, int64_t left_step,
                                                               const float *right, int64_t right_step, float *out,
                                                               int64_t out_row, int64_t steps, const int rows,
                                                               const int add) {
  floats sums[STRIP][2];
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++) {
    sums[i][0] = add ? load_float(out + i * out_row) : splat(0);
    sums[i][1] = add ? load_float(out + i * out_row + LANES) : splat(0);
  }
  for (int64_t r = 0; r < steps; r++) {
    floats first = load_float(right + r * right_step), second = load_float(right + r * right_step + LANES);
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
      float factor = left[i * left_row + r * left_step];
      sums[i][0] += factor * first;
      sums[i][1] += factor * second;
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++) {
    store_float(out + i * out_row, sums[i][0]);
    store_float(out + i * out_row + LANES, sums[i][1]);
  }
}

typedef struct {
  int64_t image, row, column;
} tile_place;

static inline tile_place place_of(int64_t tile, int64_t tile_rows, int64_t tile_columns) {
  int64_t line = tile / tile_columns;
  return (tile_place){line / tile_rows, line % tile_rows * 2, tile % tile_columns * 2};
}

/* v[point][channel] = B' x B of one tile of x [images][height][width][channels]; beyond the image x is zero. */
static void tile_of_inputs(const float *x, float *v, int64_t v_point, tile_place at, int64_t height, int64_t width,
                           int64_t channels) {
  for (int64_t c = 0; c < channels; c += LANES) {
    floats t[4][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      floats d[4];
      int64_t column = at.column - 1 + j;
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        int64_t row = at.row - 1 + i;
        int inside = row >= 0 && row < height && column >= 0 && column < width;
        d[i] = inside ? load_float(x + ((at.image * height + row) * width + column) * channels + c) : splat(0);
      }
      t[0][j] = d[0] - d[2];
      t[1][j] = d[1] + d[2];
      t[2][j] = d[2] - d[1];
      t[3][j] = d[1] - d[3];
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      float *out = v + 4 * i * v_point + c;
      store_float(out, t[i][0] - t[i][2]);
      store_float(out + v_point, t[i][1] + t[i][2]);
      store_float(out + 2 * v_point, t[i][2] - t[i][1]);
      store_float(out + 3 * v_point, t[i][1] - t[i][3]);
    }
  }
}

/* y = A' m A of one tile: [images][height][width][channels]. */
static void tile_of_outputs(const float *m, int64_t m_point, float *y, tile_place at, int64_t height, int64_t width,
                            int64_t channels) {
  for (int64_t c = 0; c < channels; c += LANES) {
    floats t[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      floats d[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) d[i] = load_float(m + (4 * i + j) * m_point + c);
      t[0][j] = d[0] + d[1] + d[2];
      t[1][j] = d[1] - d[2] - d[3];
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      if (at.row + i >= height) continue;
      float *out = y + ((at.image * height + at.row + i) * width + at.column) * channels + c;
      store_float(out, t[i][0] + t[i][1] + t[i][2]);
      if (at.column + 1 < width) store_float(out + channels, t[i][1] - t[i][2] - t[i][3]);
    }
  }
}

/* v[point][channel] = A dy A' of one tile of dy [images][height][width][channels]. */
static void tile_of_gradients(const float *dy, float *v, int64_t v_point, tile_place at, int64_t height, int64_t width,
                              int64_t channels) {
  for (int64_t c = 0; c < channels; c += LANES) {
    floats t[4][2];
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      floats d[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; i++) {
        int inside = at.row + i < height && at.column + j < width;
        int64_t pixel = (at.image * height + at.row + i) * width + at.column + j;
        d[i] = inside ? load_float(dy + pixel * channels + c) : splat(0);
      }
      t[0][j] = d[0];
      t[1][j] = d[0] + d[1];
      t[2][j] = d[0] - d[1];
      t[3][j] = -d[1];
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      float *out = v + 4 * i * v_point + c;
      store_float(out, t[i][0]);
      store_float(out + v_point, t[i][0] + t[i][1]);
      store_float(out + 2 * v_point, t[i][0] - t[i][1]);
      store_float(out + 3 * v_point, -t[i][1]);
    }
  }
}

/* u = G w G' of 16 input channels from w [3][3][channels]. */
static inline __attribute__((always_inline)) void transformed_weights(const float *w, int64_t channels,
                                                                      floats u[POINTS]) {
  floats t[4][3];
#pragma GCC unroll 3
  for (int j = 0; j < 3; j++) {
    floats g0 = load_float(w + j * channels), g1 = load_float(w + (3 + j) * channels),
           g2 = load_float(w + (6 + j) * channels);
    floats ends = (g0 + g2) * 0.5f, middle = g1 * 0.5f;
    t[0][j] = g0;
    t[1][j] = ends + middle;
    t[2][j] = ends - middle;
    t[3][j] = g2;
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    floats ends = (t[i][0] + t[i][2]) * 0.5f, middle = t[i][1] * 0.5f;
    u[4 * i] = t[i][0];
    u[4 * i + 1] = ends + middle;
    u[4 * i + 2] = ends - middle;
    u[4 * i + 3] = t[i][2];
  }
}

#define LOW_PAIRS 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_PAIRS 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31

/* Transposes 16 x 16 floats: interleaving rows i and i + 8 four times over. */
static inline void transpose(floats block[LANES]) {
  floats other[LANES];
  for (int pass = 0; pass < 2; pass++) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      other[2 * i] = __builtin_shufflevector(block[i], block[i + 8], LOW_PAIRS);
      other[2 * i + 1] = __builtin_shufflevector(block[i], block[i + 8], HIGH_PAIRS);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      block[2 * i] = __builtin_shufflevector(other[i], other[i + 8], LOW_PAIRS);
      block[2 * i + 1] = __builtin_shufflevector(other[i], other[i + 8], HIGH_PAIRS);
    }
  }
}

/* u [point][outputs / 32][inputs][32], for winograd_convolution forward, from w [outputs][3][3][inputs]. */
void winograd_weights(const float *w, float *u, int64_t outputs, int64_t inputs) {
  floats block[POINTS][LANES];
  for (int64_t o = 0; o < outputs; o += LANES)
    for (int64_t c = 0; c < inputs; c += LANES) {
      for (int k = 0; k < LANES; k++) {
        floats points[POINTS];
        transformed_weights(w + (o + k) * 9 * inputs + c, inputs, points);
        for (int p = 0; p < POINTS; p++) block[p][k] = points[p];
      }
      for (int p = 0; p < POINTS; p++) {
        transpose(block[p]);
        float *out = u + p * weights_point(outputs, inputs) + (o / PANEL * inputs + c) * PANEL + o % PANEL;
        for (int k = 0; k < LANES; k++) store_float(out + k * PANEL, block[p][k]);
      }
    }
}

/* The same towards the inputs: u [point][inputs / 32][outputs][32] of the weights turned by half a turn, which swaps the
   first and the last of each four points. */
void winograd_turned_weights(const float *w, float *u, int64_t outputs, int64_t inputs) {
  static const int TURNED[4] = {3, 1, 2, 0};
  for (int64_t o = 0; o < outputs; o++)
    for (int64_t c = 0; c < inputs; c += LANES) {
      floats points[POINTS];
      transformed_weights(w + o * 9 * inputs + c, inputs, points);
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
          /* Turning a filter of three taps maps (g0, g1, g2) to (g2, g1, g0): points 1 and 2 are symmetric in it. */
          float *out = u + (4 * TURNED[i] + TURNED[j]) * weights_point(outputs, inputs);
          store_float(out + (c / PANEL * outputs + o) * PANEL + c % PANEL, points[4 * i + j]);
        }
    }
}

/* y [images][height][width][outputs] from x [images][height][width][inputs] and transformed weights. */
void winograd_convolution(const float *x, const float *u, float *y, float *scratch, int64_t images, int64_t height,
                          int64_t width, int64_t inputs, int64_t outputs) {
  int64_t tile_rows = (height + 1) / 2, tile_columns = (width + 1) / 2, tiles = images * tile_rows * tile_columns;
  int64_t most = tiles_at_once(inputs + outputs, tiles), v_row = inputs + LANES, m_row = outputs + LANES;
  int64_t v_point = most * v_row, m_point = most * m_row;
  float *v = scratch, *m = scratch + POINTS * v_point;
  for (int64_t start = 0; start < tiles; start += most) {
    int64_t count = tiles - start < most ? tiles - start : most;
    for (int64_t t = 0; t < count; t++)
      tile_of_inputs(x, v + t * v_row, v_point, place_of(start + t, tile_rows, tile_columns), height, width, inputs);
    for (int p = 0; p < POINTS; p++)
      for (int64_t o = 0; o < outputs; o += PANEL)
        /* The last strip may reach beyond the tiles: what it makes of old numbers there is not looked at. */
        for (int64_t t = 0; t < count; t += STRIP)
          product_tile(v + p * v_point + t * v_row, v_row, 1, u + p * weights_point(outputs, inputs) + o * inputs, PANEL,
                       m + p * m_point + t * m_row + o, m_row, inputs, STRIP, 0);
    for (int64_t t = 0; t < count; t++)
      tile_of_outputs(m + t * m_row, m_point, y, place_of(start + t, tile_rows, tile_columns), height, width, outputs);
  }
}

/* dw [outputs][3][3][inputs] from x and dy; du: scratch, [point][outputs][inputs]. */
void winograd_weight_gradient(const float *x, const float *dy, float *dw, float *du, float *scratch, int64_t images,
                              int64_t height, int64_t width, int64_t inputs, int64_t outputs) {
  int64_t tile_rows = (height + 1) / 2, tile_columns = (width + 1) / 2, tiles = images * tile_rows * tile_columns;
  int64_t most = tiles_at_once(inputs + outputs, tiles), v_row = inputs + LANES, m_row = outputs + LANES;
  int64_t v_point = most * v_row, m_point = most * m_row;
  float *v = scratch, *m = scratch + POINTS * v_point;
  for (int64_t start = 0; start < tiles; start += most) {
    int64_t count = tiles - start < most ? tiles - start : most;
    for (int64_t t = 0; t < count; t++) {
      tile_place at = place_of(start + t, tile_rows, tile_columns);
      tile_of_inputs(x, v + t * v_row, v_point, at, height, width, inputs);
      tile_of_gradients(dy, m + t * m_row, m_point, at, height, width, outputs);
    }
    for (int p = 0; p < POINTS; p++)
      for (int64_t c = 0; c < inputs; c += PANEL)
        for (int64_t o = 0; o < outputs; o += TILE_ROWS) {
          const float *left = m + p * m_point + o, *right = v + p * v_point + c;
          float *out = du + p * weights_point(outputs, inputs) + o * inputs + c;
          if (start)
            product_tile(left, 1, m_row, right, v_row, out, inputs, count, TILE_ROWS, 1);
          else
            product_tile(left, 1, m_row, right, v_row, out, inputs, count, TILE_ROWS, 0);
        }
  }
  for (int64_t o = 0; o < outputs; o++)
    for (int64_t c = 0; c < inputs; c += LANES) {
      floats t[3][4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        floats d[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) d[i] = load_float(du + (4 * i + j) * weights_point(outputs, inputs) + o * inputs + c);
        floats sum = (d[1] + d[2]) * 0.5f;
        t[0][j] = d[0] + sum;
        t[1][j] = (d[1] - d[2]) * 0.5f;
        t[2][j] = sum + d[3];
      }
#pragma GCC unroll 3
      for (int i = 0; i < 3; i++) {
        float *out = dw + (o * 9 + 3 * i) * inputs + c;
        floats sum = (t[i][1] + t[i][2]) * 0.5f;
        store_float(out, t[i][0] + sum);
        store_float(out + inputs, (t[i][1] - t[i][2]) * 0.5f);
        store_float(out + 2 * inputs, sum + t[i][3]);
      }
    }
}
