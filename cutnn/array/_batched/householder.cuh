// QR by Householder reflectors, a block for each face: LAPACK's geqr2 and org2r, with its signs.
//
// The face lies in shared memory, or in a workspace, column by column; LANES lanes take a column. The group that
// applies reflector j to column j + 1 makes reflector j + 1 of it at once: one barrier for each column.

// Reflector H = 1 - tau v vᴴ of column x[at:], v[at] = 1, Hᴴ x = beta e: v below `at`, beta there. Returns tau.
__device__ T reflector(T* x, int at, int rows) {
  const int lane = threadIdx.x % LANES;
  Real most = 0;
  for (int i = at + 1 + lane; i < rows; i += LANES) {
    const Real size = largest(x[i]);
    most = size > most || size != size ? size : most;
  }
  // fmax leaves out nan, and a sum does not: a column with nan or inf makes a reflector of nan.
  const Real broken = group_sum(most - most);
  most = group_max(most);
  const T alpha = x[at];
  if (most == 0 && broken == 0 && imag(alpha) == 0) return number(0);
  const int e = exponent(fmax(most, largest(alpha)));
  const Power down = power(-e);
  Real squares = 0;
  for (int i = at + 1 + lane; i < rows; i += LANES) squares += square(down * x[i]);
  const T a = down * alpha;
  const Real norm = broken + sqrt(group_sum(squares) + square(a)), beta = -copysign(norm, real(a));
  const Real re = real(a) - beta, im = imag(a), size = square(number(re, im));
  const T inverse = number(re / size, -im / size);  // of alpha - beta, by 2**e
  for (int i = at + 1 + lane; i < rows; i += LANES) x[i] = (down * x[i]) * inverse;
  __syncwarp(group_mask());
  if (lane == 0) x[at] = number(power(e) * beta);
  return number((beta - real(a)) / beta, -imag(a) / beta);
}

// x[at:] -= tau v (vᴴ x), v below `at` and 1 there.
__device__ void reflect(T* x, const T* v, T tau, int at, int rows) {
  const int lane = threadIdx.x % LANES;
  T dot = number(0);
  for (int i = at + 1 + lane; i < rows; i += LANES) dot += conj(v[i]) * x[i];
  dot = tau * (group_sum(dot) + x[at]);
  for (int i = at + 1 + lane; i < rows; i += LANES) x[i] -= v[i] * dot;
  __syncwarp(group_mask());
  if (lane == 0) x[at] -= dot;
  __syncwarp(group_mask());
}

// a: (count, rows, columns) by its strides, in numbers, and conjugated if asked for; q (count, rows, q_columns) or null; r (count, r_rows, columns).
// q_columns is k = min(rows, columns), or rows; r_rows is k, or rows. order: (count, columns), column i of what is
// factored is column order[i] of a, their largest entries falling; or null, and they stay where they are.
extern "C" __global__ void __launch_bounds__(1024) householder(
    const T* __restrict__ a, long long face_stride, long long row_stride, long long column_stride,
    int conjugate, int* __restrict__ order, T* __restrict__ q, T* __restrict__ r, T* workspace, int in_shared, int count, int rows, int columns,
    int q_columns, int r_rows) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int k = min(rows, columns), width = max(columns, q_columns), stride = rows | 1;
  T* tau = reinterpret_cast<T*>(memory);
  Real* most = reinterpret_cast<Real*>(tau + k);
  int* place = reinterpret_cast<int*>(most + columns);
  T* next = reinterpret_cast<T*>(memory + ((char*)(place + columns) - (char*)memory + 15) / 16 * 16);
  T* w = in_shared ? next : workspace + (size_t)blockIdx.x * stride * width;
  const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, groups = blockDim.x / LANES;

  for (int face = blockIdx.x; face < count; face += gridDim.x) {
    const T* from = a + face * face_stride;
    for (int c = group; c < columns && order; c += groups) {
      Real size = 0;
      for (int i = lane; i < rows; i += LANES) {
        const Real here = largest(from[i * row_stride + c * column_stride]);
        size = fmax(size, here);
      }
      size = group_max(size);
      if (lane == 0) most[c] = size;
    }
    __syncthreads();
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
      int before = 0;
      for (int other = 0; other < columns && order; ++other)
        before += most[other] > most[c] || (most[other] == most[c] && other < c);
      place[c] = order ? before : c;
      if (order) order[(size_t)face * columns + before] = c;
    }
    __syncthreads();
    for (int t = threadIdx.x; t < rows * columns; t += blockDim.x) {
      const T x = from[t / columns * row_stride + t % columns * column_stride];
      w[place[t % columns] * stride + t / columns] = conjugate ? conj(x) : x;
    }
    __syncthreads();

    if (group == 0) {
      const T first = reflector(w, 0, rows);
      if (lane == 0) tau[0] = first;
    }
    __syncthreads();
    for (int j = 0; j < k; ++j) {
      for (int c = j + 1 + group; c < columns; c += groups) {
        reflect(w + c * stride, w + j * stride, conj(tau[j]), j, rows);
        if (c == j + 1 && c < k) {
          const T next = reflector(w + c * stride, c, rows);
          if (lane == 0) tau[c] = next;
        }
      }
      __syncthreads();
    }

    T* r_face = r + (size_t)face * r_rows * columns;
    for (int t = threadIdx.x; t < r_rows * columns; t += blockDim.x) {
      const int i = t / columns, c = t % columns;
      r_face[t] = i <= c && i < k ? w[c * stride + i] : number(0);
    }
    if (q) {
      __syncthreads();
      // Columns of the identity beyond k; those before it are made of their v when their reflector has been used.
      for (int t = threadIdx.x; t < rows * (q_columns - k); t += blockDim.x)
        w[(k + t / rows) * stride + t % rows] = number(k + t / rows == t % rows);
      __syncthreads();
      for (int j = k - 1; j >= -1; --j) {
        for (int c = j + 1 + group; c < q_columns; c += groups) {
          T* x = w + c * stride;
          if (c == j + 1 && c < k) {  // H e = e - tau v
            const T minus = number(0) - tau[c];
            for (int i = lane; i < rows; i += LANES)
              x[i] = i < c ? number(0) : i == c ? number(1) + minus : minus * x[i];
            __syncwarp(group_mask());
          }
          if (j >= 0) reflect(x, w + j * stride, tau[j], j, rows);
        }
        __syncthreads();
      }
      T* q_face = q + (size_t)face * rows * q_columns;
      for (int t = threadIdx.x; t < rows * q_columns; t += blockDim.x)
        q_face[t] = w[t % q_columns * stride + t / q_columns];
    }
    __syncthreads();
  }
}
