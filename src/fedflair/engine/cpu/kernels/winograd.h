/* Winograd's convolutions for one type of elements; winograd_tiles.h says what they are. Included with

   ELEMENT, LOAD, STORE, NAME: as in norm.h.
   PER: numbers that a factor of the products holds side by side, along what is summed over: 1 float or 2 bfloat16s, in
        the 32 bits of a float.
   ALONG(values): LANES factors from PER vectors of consecutive numbers. ACROSS(values): LANES factors, each with one number of
        each vector.
   ADD_PRODUCT(sum, left, right): sum += left * right, summed over what factors hold. */

/* out[i][j] (+)= sum over r of left[i * left_row + r * left_step] * right[r * right_step + j], j below PANEL. */
static inline __attribute__((always_inline)) void NAME(product_tile)(const float *left, int64_t left_row,
                                                                     int64_t left_step, const float *right,
                                                                     int64_t right_step, float *out, int64_t out_row,
                                                                     int64_t steps, const int rows, const int add) {
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
      floats factor = spread(left + i * left_row + r * left_step);
      sums[i][0] = ADD_PRODUCT(sums[i][0], factor, first);
      sums[i][1] = ADD_PRODUCT(sums[i][1], factor, second);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++) {
    store_float(out + i * out_row, sums[i][0]);
    store_float(out + i * out_row + LANES, sums[i][1]);
  }
}

/* B' x B of one tile and LANES channels from c on; beyond the image x [images][height][width][channels] is zero. */
static inline __attribute__((always_inline)) void NAME(inputs_of_tile)(const ELEMENT *x, floats points[POINTS],
                                                                       tile_place at, int64_t height, int64_t width,
                                                                       int64_t channels, int64_t c) {
  floats t[4][4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    floats d[4];
    int64_t column = at.column - 1 + j;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      int64_t row = at.row - 1 + i;
      int inside = row >= 0 && row < height && column >= 0 && column < width;
      d[i] = inside ? LOAD(x + ((at.image * height + row) * width + column) * channels + c) : splat(0);
    }
    t[0][j] = d[0] - d[2];
    t[1][j] = d[1] + d[2];
    t[2][j] = d[2] - d[1];
    t[3][j] = d[1] - d[3];
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    points[4 * i] = t[i][0] - t[i][2];
    points[4 * i + 1] = t[i][1] + t[i][2];
    points[4 * i + 2] = t[i][2] - t[i][1];
    points[4 * i + 3] = t[i][1] - t[i][3];
  }
}

/* A dy A' of one tile and LANES channels from c on. */
static inline __attribute__((always_inline)) void NAME(gradients_of_tile)(const ELEMENT *dy, floats points[POINTS],
                                                                          tile_place at, int64_t height,
                                                                          int64_t width, int64_t channels, int64_t c) {
  floats t[4][2];
#pragma GCC unroll 2
  for (int j = 0; j < 2; j++) {
    floats d[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      int inside = at.row + i < height && at.column + j < width;
      int64_t pixel = (at.image * height + at.row + i) * width + at.column + j;
      d[i] = inside ? LOAD(dy + pixel * channels + c) : splat(0);
    }
    t[0][j] = d[0];
    t[1][j] = d[0] + d[1];
    t[2][j] = d[0] - d[1];
    t[3][j] = -d[1];
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    points[4 * i] = t[i][0];
    points[4 * i + 1] = t[i][0] + t[i][1];
    points[4 * i + 2] = t[i][0] - t[i][1];
    points[4 * i + 3] = -t[i][1];
  }
}

/* y = A' m A of one tile: [images][height][width][channels]. */
static void NAME(outputs_of_tile)(const float *m, int64_t m_point, ELEMENT *y, tile_place at, int64_t height,
                                  int64_t width, int64_t channels) {
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
      ELEMENT *out = y + ((at.image * height + at.row + i) * width + at.column) * channels + c;
      STORE(out, t[i][0] + t[i][1] + t[i][2]);
      if (at.column + 1 < width) STORE(out + channels, t[i][1] - t[i][2] - t[i][3]);
    }
  }
}

/* G w G' of LANES input channels from w [3][3][channels]. */
static inline __attribute__((always_inline)) void NAME(transformed_weights)(const ELEMENT *w, int64_t channels,
                                                                            floats points[POINTS]) {
  floats t[4][3];
#pragma GCC unroll 3
  for (int j = 0; j < 3; j++) {
    floats g0 = LOAD(w + j * channels), g1 = LOAD(w + (3 + j) * channels), g2 = LOAD(w + (6 + j) * channels);
    floats ends = (g0 + g2) * 0.5f, middle = g1 * 0.5f;
    t[0][j] = g0;
    t[1][j] = ends + middle;
    t[2][j] = ends - middle;
    t[3][j] = g2;
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    floats ends = (t[i][0] + t[i][2]) * 0.5f, middle = t[i][1] * 0.5f;
    points[4 * i] = t[i][0];
    points[4 * i + 1] = ends + middle;
    points[4 * i + 2] = ends - middle;
    points[4 * i + 3] = t[i][2];
  }
}

/* Factors [point][inputs / PER][PANEL] of the PANEL outputs from `first` on, for a convolution forward, from w
   [outputs][3][3][inputs]; numbers of the next point `point` later. */
static void NAME(factors)(const ELEMENT *w, float *u, int64_t point, int64_t first, int64_t outputs, int64_t inputs) {
  floats block[POINTS][LANES];
  for (int64_t o = first; o < first + PANEL; o += LANES)
    for (int64_t c = 0; c < inputs; c += PER * LANES) {
      /* A piece of the next LANES outputs' weights, which lie one after the other: these reads here do not follow each
         other closely enough for the processor to foresee them. */
      const char *ahead = (const char *)(w + ((o + LANES) * inputs + c * LANES) * 9);
      if (o + LANES < outputs)
        for (int64_t k = 0; k < 9 * LANES * PER * LANES * (int64_t)sizeof(ELEMENT); k += 64) __builtin_prefetch(ahead + k);
      for (int k = 0; k < LANES; k++) {
        floats points[PER][POINTS];
        for (int h = 0; h < PER; h++)
          NAME(transformed_weights)(w + (o + k) * 9 * inputs + c + h * LANES, inputs, points[h]);
        for (int p = 0; p < POINTS; p++) block[p][k] = ALONG(points, p);
      }
      for (int p = 0; p < POINTS; p++) {
        transpose(block[p]);
        float *out = u + p * point + c / PER * PANEL + o % PANEL;
        for (int k = 0; k < LANES; k++) store_float(out + k * PANEL, block[p][k]);
      }
    }
}

/* The same towards the inputs: [point][outputs / PER][PANEL] of the PANEL inputs from `first` on, of the weights turned by half a
   turn, which swaps the first and the last of each four points. */
static void NAME(turned_factors)(const ELEMENT *w, float *u, int64_t point, int64_t first, int64_t inputs,
                                 int64_t outputs) {
  static const int TURNED[4] = {3, 1, 2, 0};
  for (int64_t o = 0; o < outputs; o += PER)
    for (int64_t c = first; c < first + PANEL; c += LANES) {
      floats points[PER][POINTS];
      for (int h = 0; h < PER; h++) NAME(transformed_weights)(w + (o + h) * 9 * inputs + c, inputs, points[h]);
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
          store_float(u + (4 * TURNED[i] + TURNED[j]) * point + o / PER * PANEL + c % PANEL, ACROSS(points, 4 * i + j));
    }
}

/* Products of the tiles with one panel, a strip at a time. The last strip may reach beyond the tiles: what it makes of old
   numbers there is not looked at. */
static inline void NAME(strips)(const float *v, int64_t v_row, const float *panel, float *m, int64_t m_row,
                                int64_t steps, int64_t tiles) {
  for (int64_t t = 0; t < tiles; t += STRIP)
    NAME(product_tile)(v + t * v_row, v_row, 1, panel, PANEL, m + t * m_row, m_row, steps, STRIP, 0);
}

/* y [images][height][width][outputs] from x [images][height][width][inputs] and w [outputs][3][3][inputs]; turned: y is the
   gradient of the inputs of a convolution with w [inputs][3][3][outputs], and x that of its outputs. */
void NAME(winograd_convolution)(const ELEMENT *x, const ELEMENT *w, ELEMENT *y, float *scratch, int64_t images,
                                int64_t height, int64_t width, int64_t inputs, int64_t outputs, int turned) {
  int64_t tile_rows = (height + 1) / 2, tile_columns = (width + 1) / 2, tiles = images * tile_rows * tile_columns;
  int64_t most = tiles_at_once(inputs + outputs, tiles), v_row = inputs / PER + LANES, m_row = outputs + LANES;
  int64_t v_point = most * v_row, m_point = most * m_row, u_point = PANEL * (inputs / PER) + LANES;
  float *v = scratch, *m = v + POINTS * v_point, *u = m + POINTS * m_point;
  void (*factors_of_panel)(const ELEMENT *, float *, int64_t, int64_t, int64_t, int64_t) =
      turned ? NAME(turned_factors) : NAME(factors);
  int one_pass = tiles <= most;
  for (int64_t start = 0; start < tiles; start += most) {
    int64_t count = tiles - start < most ? tiles - start : most;
    for (int64_t t = 0; t < count; t++) {
      tile_place at = place_of(start + t, tile_rows, tile_columns);
      for (int64_t c = 0; c < inputs; c += PER * LANES) {
        floats points[PER][POINTS];
        for (int h = 0; h < PER; h++)
          NAME(inputs_of_tile)(x, points[h], at, height, width, inputs, c + h * LANES);
        for (int p = 0; p < POINTS; p++) store_float(v + p * v_point + t * v_row + c / PER, ALONG(points, p));
      }
    }
    if (one_pass) {
      /* Each panel of factors is used once, while it is in the cache. */
      for (int64_t o = 0; o < outputs; o += PANEL) {
        factors_of_panel(w, u, u_point, o, outputs, inputs);
        for (int p = 0; p < POINTS; p++)
          NAME(strips)(v + p * v_point, v_row, u + p * u_point, m + p * m_point + o, m_row, inputs / PER, count);
      }
    } else {
      for (int64_t o = 0; o < outputs && start == 0; o += PANEL)
        factors_of_panel(w, u + o / PANEL * POINTS * u_point, u_point, o, outputs, inputs);
      for (int p = 0; p < POINTS; p++)
        for (int64_t o = 0; o < outputs; o += PANEL)
          NAME(strips)(v + p * v_point, v_row, u + (o / PANEL * POINTS + p) * u_point, m + p * m_point + o, m_row,
                       inputs / PER, count);
    }
    for (int64_t t = 0; t < count; t++)
      NAME(outputs_of_tile)(m + t * m_row, m_point, y, place_of(start + t, tile_rows, tile_columns), height, width,
                            outputs);
  }
}

/* dw [outputs][3][3][inputs], in float, from x and dy. */
void NAME(winograd_weight_gradient)(const ELEMENT *x, const ELEMENT *dy, float *dw, float *scratch, int64_t images,
                                    int64_t height, int64_t width, int64_t inputs, int64_t outputs) {
  int64_t tile_rows = (height + 1) / 2, tile_columns = (width + 1) / 2, tiles = images * tile_rows * tile_columns;
  int64_t most = tiles_at_once(inputs + outputs, tiles), v_row = inputs + LANES;
  int64_t v_point = most * v_row, m_point = most * (outputs + LANES);
  /* In one pass each column of 8 outputs lies by itself, since it is read from further away; else they lie side by side. */
  int one_pass = tiles <= most;
  int64_t m_column = one_pass ? most * TILE_ROWS : TILE_ROWS, m_row = one_pass ? TILE_ROWS : outputs + LANES;
  float *v = scratch, *m = v + POINTS * v_point, *du = m + POINTS * m_point;
  for (int64_t start = 0; start < tiles; start += most) {
    int64_t count = tiles - start < most ? tiles - start : most, steps = (count + PER - 1) / PER;
    for (int64_t r = 0; r < steps; r++) {
      tile_place at[PER];
      for (int h = 0; h < PER; h++) at[h] = place_of(start + PER * r + h, tile_rows, tile_columns);
      /* A last tile without a partner is paired with nothing: with rows outside the image. */
      if (PER * r + PER > count) at[PER - 1].row = height + 1;
      for (int64_t c = 0; c < inputs; c += LANES) {
        floats points[PER][POINTS];
        for (int h = 0; h < PER; h++) NAME(inputs_of_tile)(x, points[h], at[h], height, width, inputs, c);
        for (int p = 0; p < POINTS; p++) store_float(v + p * v_point + r * v_row + c, ACROSS(points, p));
      }
      for (int64_t o = 0; o < outputs; o += LANES) {
        floats points[PER][POINTS];
        for (int h = 0; h < PER; h++) NAME(gradients_of_tile)(dy, points[h], at[h], height, width, outputs, o);
        for (int p = 0; p < POINTS; p++) {
          floats values = ACROSS(points, p);
          float *out = m + p * m_point + o / TILE_ROWS * m_column + r * m_row;
          memcpy(out, &values, TILE_ROWS * sizeof(float));
          memcpy(out + m_column, (float *)&values + TILE_ROWS, TILE_ROWS * sizeof(float));
        }
      }
    }
    if (one_pass) {
      /* One pass: a block of weights is done while its points are in the first-level cache. */
      for (int64_t c = 0; c < inputs; c += PANEL)
        for (int64_t o = 0; o < outputs; o += TILE_ROWS) {
          float block[POINTS * TILE_ROWS * PANEL];
          for (int p = 0; p < POINTS; p++)
            NAME(product_tile)(m + p * m_point + o / TILE_ROWS * m_column, 1, m_row, v + p * v_point + c, v_row,
                               block + p * TILE_ROWS * PANEL, PANEL, steps, TILE_ROWS, 0);
          for (int k = 0; k < TILE_ROWS; k++)
            weights_of_points(block + k * PANEL, TILE_ROWS * PANEL, dw + (o + k) * 9 * inputs + c, inputs, PANEL);
        }
      return;
    }
    for (int p = 0; p < POINTS; p++)
      for (int64_t c = 0; c < inputs; c += PANEL)
        for (int64_t o = 0; o < outputs; o += TILE_ROWS) {
          const float *left = m + p * m_point + o / TILE_ROWS * m_column, *right = v + p * v_point + c;
          float *out = du + p * weights_point(outputs, inputs) + o * inputs + c;
          if (start)
            NAME(product_tile)(left, 1, m_row, right, v_row, out, inputs, steps, TILE_ROWS, 1);
          else
            NAME(product_tile)(left, 1, m_row, right, v_row, out, inputs, steps, TILE_ROWS, 0);
        }
  }
  for (int64_t o = 0; o < outputs; o++)
    weights_of_points(du + o * inputs, weights_point(outputs, inputs), dw + o * 9 * inputs, inputs, inputs);
}
