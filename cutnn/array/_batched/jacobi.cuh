// SVD and Hermitian eigenvectors of square faces by one-sided Jacobi rotations (Hestenes 1958), a block for each face.
//
// Rotations of two columns at a time make all columns of G, (n, n), orthogonal: G V = U S. LANES lanes take a pair, and a
// step is n / 2 pairs that have nothing in common, in the order of a round robin. A sweep, every pair once, without a
// rotation is the last. All angles are below 45 degrees: exchanging columns besides, so that they end sorted, took
// 14 sweeps where this takes 10 (Gaussian entries, n = 100; 10 and 8 for n = 32).
//
// G = Rᴴ comes from A P = Q R, columns of A sorted (householder.cuh), after Drmač and Veselić (2008): 8 to 10 sweeps of
// faces of 100 rows falling by 12 orders, which without it had not converged after 40. Then A = (Q V) S (P U)ᴴ.
//
// A Hermitian A has the eigenvectors of the positive definite A + c, of condition 5 at most, and they are its U: no V is
// wanted. Eigenvalues are Rayleigh quotients with A itself, since the shift rounds those of A + c.

#define MOST_SWEEPS 40

__device__ __forceinline__ Real zero_norm() {  // below it squares of columns, of a face about 1, begin to underflow
  return sizeof(Real) == 4 ? Real(1e-12) : Real(1e-138);
}
__device__ __forceinline__ Real epsilon() { return sizeof(Real) == 4 ? Real(1.1920929e-7) : Real(2.220446049250313e-16); }

// The rotation [p q] -> [c p - s conj(e) q, s e p + c q] that makes them orthogonal, for pq = pᴴ q, |pq| > 0, e = pq / |pq|.
// It adds corrections with the factors s e and 1 - c, so that rounding errors fall with the angle (Rutishauser 1966):
// with products by c, V of 32 × 32 faces was orthogonal to 40 eps, and singular values right to 15 eps.
struct Rotation {
  T side;
  Real less;
};
__device__ __forceinline__ Rotation rotation(Real pp, Real qq, T pq, Real size) {
  const Real zeta = (qq - pp) / (2 * size), far = fabs(zeta);
  const Real t = copysign(1 / (far + (far > Real(1e5) * Real(1e5) ? far : sqrt(1 + far * far))), zeta);
  const Real c = 1 / sqrt(1 + t * t), s = c * t;
  return {(s / size) * pq, s * s / (1 + c)};
}

__device__ __forceinline__ void rotate(T* p, T* q, int rows, Rotation by) {
  for (int i = threadIdx.x % LANES; i < rows; i += LANES) {
    const T x = p[i], y = q[i];
    p[i] = x - (conj(by.side) * y + by.less * x);
    q[i] = y + (by.side * x - by.less * y);
  }
}

// Columns p and q of G, and with them those of V, where there is one. Returns whether they had to be rotated.
__device__ bool orthogonalise(T* gp, T* gq, T* vp, T* vq, int n, int v_rows, Real tolerance) {
  T pq = number(0);
  Real pp = 0, qq = 0;
  for (int i = threadIdx.x % LANES; i < n; i += LANES) {
    const T x = gp[i], y = gq[i];
    pp += square(x);
    qq += square(y);
    pq += conj(x) * y;
  }
  pp = group_sum(pp), qq = group_sum(qq), pq = group_sum(pq);
  const Real p_norm = sqrt(pp), q_norm = sqrt(qq), size = magnitude(pq);
  if (!(size > tolerance * p_norm * q_norm && fmin(p_norm, q_norm) > zero_norm())) return false;
  const Rotation by = rotation(pp, qq, pq, size);
  rotate(gp, gq, n, by);
  rotate(vp, vq, v_rows, by);
  return true;
}

// Columns `have` .. `want` - 1 of u, orthonormal to those before it and to one another: the unit vector that is
// furthest from their span, made orthogonal to it twice (Gram and Schmidt; twice is enough, Kahan and Parlett 1980).
// Every thread of the block calls it; dots holds `want` numbers, left `rows` of them.
__device__ void complete(T* u, int row_stride, int column_stride, int rows, int have, int want, T* dots, Real* left) {
  __shared__ int furthest;
  const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, groups = blockDim.x / LANES;
  for (int i = threadIdx.x; i < rows; i += blockDim.x) {
    left[i] = 1;
    for (int j = 0; j < have; ++j) left[i] -= square(u[i * row_stride + j * column_stride]);
  }
  for (; have < want; ++have) {
    T* x = u + have * column_stride;
    __syncthreads();
    if (threadIdx.x == 0) {
      furthest = 0;
      for (int i = 1; i < rows; ++i)
        if (left[i] > left[furthest]) furthest = i;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < rows; i += blockDim.x) x[i * row_stride] = number(i == furthest);
    for (int again = 0; again < 2; ++again) {
      __syncthreads();
      for (int j = group; j < have; j += groups) {
        T dot = number(0);
        for (int i = lane; i < rows; i += LANES)
          dot += conj(u[i * row_stride + j * column_stride]) * x[i * row_stride];
        dot = group_sum(dot);
        if (lane == 0) dots[j] = dot;
      }
      __syncthreads();
      for (int i = threadIdx.x; i < rows; i += blockDim.x)
        for (int j = 0; j < have; ++j) x[i * row_stride] -= u[i * row_stride + j * column_stride] * dots[j];
    }
    __syncthreads();
    Real squares = 0;  // every group for itself
    for (int i = lane; i < rows; i += LANES) squares += square(x[i * row_stride]);
    const Real inverse = rsqrt(group_sum(squares));
    __syncthreads();
    for (int i = threadIdx.x; i < rows; i += blockDim.x) {
      x[i * row_stride] = inverse * x[i * row_stride];
      left[i] -= square(x[i * row_stride]);
    }
  }
}

__device__ __forceinline__ T lower(const T* a, long long row_stride, long long column_stride, int i, int j) {
  return i >= j ? a[i * row_stride + j * column_stride] : conj(a[j * row_stride + i * column_stride]);
}

// uᴴ A u of a Hermitian A, its lower triangle, with u of norm 1.
__device__ Real rayleigh(const T* a, long long row_stride, long long column_stride, int n, const T* u, Power scale) {
  Real total = 0;
  for (int i = threadIdx.x % LANES; i < n; i += LANES) {
    T sum = number(0);
    for (int j = 0; j < i; ++j) sum += (scale * a[i * row_stride + j * column_stride]) * u[j];
    total += 2 * real(conj(u[i]) * sum) + scale * real(a[i * (row_stride + column_stride)]) * square(u[i]);
  }
  return group_sum(total);
}

// a: (count, n, n), by its strides, in numbers; its Hermitian conjugate is G. hermitian: its lower triangle is A instead,
// s ascends and holds eigenvalues, and v is null.
// s: (count, n). u, v: faces n by n and v_rows by v_columns, or null, by their strides in a face, conjugated if asked for.
// order: (count, n), row i of U goes to row order[i] of u; or null. q: (count, v_rows, v_columns), v is q V, and q beyond
// column n; or null, and v is V. info: how many sweeps; -1 for a face with nan or inf, whose results are nan; -2 where
// MOST_SWEEPS were not enough.
// g_shared, v_shared: which of G and V lie in shared memory, else in the workspace.
extern "C" __global__ void __launch_bounds__(1024) jacobi(
    const T* __restrict__ a, long long face_stride, long long row_stride, long long column_stride, int hermitian,
    Real* __restrict__ s, T* u, int u_row, int u_column, int u_conj, const int* __restrict__ order, T* v, int v_row,
    int v_column, int v_conj, const T* __restrict__ q, int v_rows, int v_columns, int* __restrict__ info,
    T* workspace, int g_shared, int v_shared, int count, int n) {
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ int rotated, zeros;
  __shared__ Real bound;
  const int stride = n | 1, held = v ? n : 0;
  const size_t g_size = (size_t)stride * n, v_size = v ? g_size : 0;
  T* dots = reinterpret_cast<T*>(memory);
  Real* left = reinterpret_cast<Real*>(dots + n);
  Real* norms = left + n;
  int* place = reinterpret_cast<int*>(norms + n);
  T* next = reinterpret_cast<T*>(memory + ((char*)(place + n) - (char*)memory + 15) / 16 * 16);
  T* spare = workspace + blockIdx.x * ((g_shared ? 0 : g_size) + (v_shared ? 0 : v_size));
  T* g = g_shared ? next : spare;
  T* w = v_shared ? next + (g_shared ? g_size : 0) : spare + (g_shared ? 0 : g_size);
  const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, groups = blockDim.x / LANES;
  const Real tolerance = epsilon() * sqrt(Real(n));

  for (int face = blockIdx.x; face < count; face += gridDim.x) {
    const T* from = a + face * face_stride;
    for (int t = threadIdx.x; t < n * n; t += blockDim.x) {
      const int i = t % n, j = t / n;
      T x = conj(from[j * row_stride + i * column_stride]);
      if (hermitian) x = i == j ? number(real(x)) : lower(from, row_stride, column_stride, i, j);
      g[j * stride + i] = x;
    }
    for (int t = threadIdx.x; t < n * held; t += blockDim.x)
      w[t / n * stride + t % n] = number(t / n == t % n);
    __syncthreads();

    // The face times a power of 2 that makes its largest entry 1 to 2; nan where there is nan or inf.
    for (int j = group; j < n; j += groups) {
      Real most = 0, broken = 0;
      for (int i = lane; i < n; i += LANES) {
        const T x = g[j * stride + i];
        most = fmax(most, largest(x));
        broken += (real(x) - real(x)) + (imag(x) - imag(x));
      }
      most = group_max(most), broken = group_sum(broken);
      if (lane == 0) norms[j] = broken == 0 ? most : not_a_number();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      Real most = 0, broken = 0;
      for (int j = 0; j < n; ++j) most = fmax(most, norms[j]), broken += norms[j] - norms[j];
      bound = most + broken;
      zeros = 0;
    }
    __syncthreads();
    const Real most = bound;
    const bool broken = most != most;
    const int e = broken ? 0 : exponent(most);
    const Power down = power(-e), up = power(e);
    for (int j = group; j < n; j += groups)
      for (int i = lane; i < n; i += LANES) g[j * stride + i] = down * g[j * stride + i];
    __syncthreads();
    if (hermitian) {  // c: 3/2 of a bound of the norm, the least of ‖A‖_F and ‖A‖_1
      for (int j = group; j < n; j += groups) {
        Real sum = 0, squares = 0;
        for (int i = lane; i < n; i += LANES) {
          const Real x = square(g[j * stride + i]);
          squares += x;
          sum += sqrt(x);
        }
        sum = group_sum(sum), squares = group_sum(squares);
        if (lane == 0) norms[j] = squares, left[j] = sum;
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        Real frobenius = 0, one = 0;
        for (int j = 0; j < n; ++j) frobenius += norms[j], one = fmax(one, left[j]);
        bound = Real(1.5) * fmin(sqrt(frobenius), one);
      }
      __syncthreads();
      const Real shift = bound > 0 ? bound : 1;
      for (int j = threadIdx.x; j < n; j += blockDim.x) g[j * stride + j] = g[j * stride + j] + number(shift);
    }

    // Sweeps. Of `around` + 1 players, one idle if n is odd, the last stays and the others go round.
    const int around = n + (n & 1) - 1;
    int sweeps = 0;
    bool converged = broken || n < 2;
    while (!converged && sweeps < MOST_SWEEPS) {
      ++sweeps;
      __syncthreads();
      if (threadIdx.x == 0) rotated = 0;
      __syncthreads();
      for (int step = 0; step < around; ++step) {
        for (int k = group; k <= around / 2; k += groups) {
          const int x = k ? (step + k) % around : step, y = k ? (step + around - k) % around : around;
          const int first = min(x, y), second = max(x, y);
          if (second < n && orthogonalise(g + first * stride, g + second * stride, w + first * stride,
                                          w + second * stride, n, held, tolerance))
            rotated = 1;
        }
        __syncthreads();
      }
      converged = !rotated;
    }
    if (threadIdx.x == 0) info[face] = broken ? -1 : converged ? sweeps : -2;
    __syncthreads();

    for (int j = group; j < n; j += groups) {
      T* column = g + j * stride;
      Real squares = 0;
      for (int i = lane; i < n; i += LANES) squares += square(column[i]);
      Real value = sqrt(group_sum(squares));
      const bool zero = value <= zero_norm();
      if (lane == 0 && zero) atomicAdd(&zeros, 1);
      if (u || hermitian) {
        const Real inverse = zero ? 0 : 1 / value;
        for (int i = lane; i < n; i += LANES) column[i] = inverse * column[i];
        __syncwarp(group_mask());
      }
      if (hermitian) value = rayleigh(from, row_stride, column_stride, n, column, down);
      if (lane == 0) norms[j] = value;
    }
    __syncthreads();
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
      int before = 0;
      for (int k = 0; k < n; ++k)
        before += (hermitian ? norms[k] < norms[j] : norms[k] > norms[j]) || (norms[k] == norms[j] && k < j);
      place[j] = broken ? j : before;
      s[(size_t)face * n + place[j]] = broken ? not_a_number() : up * norms[j];
    }
    __syncthreads();
    const T nan = number(not_a_number(), not_a_number());
    if (u) {
      T* to = u + (size_t)face * n * n;
      for (int t = threadIdx.x; t < n * n; t += blockDim.x) {
        const int i = t % n, j = t / n, row = order ? order[(size_t)face * n + i] : i;
        const T x = broken ? nan : g[j * stride + i];
        to[row * u_row + place[j] * u_column] = u_conj ? conj(x) : x;
      }
      __syncthreads();
      if (zeros && !broken) complete(to, u_row, u_column, n, n - zeros, n, dots, left);
    }
    if (v) {
      T* to = v + (size_t)face * v_rows * v_columns;
      const T* by = q + (size_t)face * v_rows * v_columns;
      for (int t = threadIdx.x; t < v_rows * v_columns; t += blockDim.x) {
        const int i = t % v_rows, j = t / v_rows;
        T x = number(0);
        if (broken)
          x = nan;
        else if (!q)
          x = w[j * stride + i];
        else if (j < n)
          for (int k = 0; k < n; ++k) x += by[i * v_columns + k] * w[j * stride + k];
        else
          x = by[i * v_columns + j];
        to[i * v_row + (j < n ? place[j] : j) * v_column] = v_conj ? conj(x) : x;
      }
    }
    __syncthreads();
  }
}
