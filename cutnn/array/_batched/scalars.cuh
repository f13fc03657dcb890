// Numbers of the four kinds behind one set of names, and sums over the LANES lanes that share a column.
//
// launch.py puts before it LANES, a power of 2 up to 32, and Real; and T, Real or Complex, where it is asked to.

struct __align__(2 * sizeof(Real)) Complex {
  Real re, im;
};
// HERE: T

__device__ __forceinline__ Real conj(Real x) { return x; }
__device__ __forceinline__ Complex conj(Complex x) { return {x.re, -x.im}; }
__device__ __forceinline__ Real real(Real x) { return x; }
__device__ __forceinline__ Real real(Complex x) { return x.re; }
__device__ __forceinline__ Real imag(Real) { return 0; }
__device__ __forceinline__ Real imag(Complex x) { return x.im; }
__device__ __forceinline__ Real square(Real x) { return x * x; }
__device__ __forceinline__ Real square(Complex x) { return x.re * x.re + x.im * x.im; }
__device__ __forceinline__ Real magnitude(Real x) { return fabs(x); }
__device__ __forceinline__ Real magnitude(Complex x) { return hypot(x.re, x.im); }
__device__ __forceinline__ Real largest(Real x) { return fabs(x); }
__device__ __forceinline__ Real largest(Complex x) { return fmax(fabs(x.re), fabs(x.im)); }
__device__ __forceinline__ Complex operator+(Complex x, Complex y) { return {x.re + y.re, x.im + y.im}; }
__device__ __forceinline__ Complex operator-(Complex x, Complex y) { return {x.re - y.re, x.im - y.im}; }
__device__ __forceinline__ Complex operator*(Complex x, Complex y) {
  return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}
__device__ __forceinline__ Complex operator*(Real x, Complex y) { return {x * y.re, x * y.im}; }
__device__ __forceinline__ void operator+=(Complex& x, Complex y) { x = x + y; }
__device__ __forceinline__ void operator-=(Complex& x, Complex y) { x = x - y; }
__device__ __forceinline__ void set(Real& x, Real re, Real) { x = re; }
__device__ __forceinline__ void set(Complex& x, Real re, Real im) { x = {re, im}; }
__device__ __forceinline__ T number(Real re, Real im = 0) {
  T x;
  set(x, re, im);
  return x;
}

__device__ __forceinline__ Real not_a_number() { return sqrt(Real(-1)); }

// The lanes of a group stand side by side in a warp; groups of a warp may be at different columns.
__device__ __forceinline__ unsigned group_mask() {
  return LANES == 32 ? ~0u : ((1u << (LANES % 32)) - 1) << (threadIdx.x % 32 / LANES * LANES);
}
__device__ __forceinline__ Real group_sum(Real x) {
  const unsigned mask = group_mask();
#pragma unroll
  for (int bits = LANES / 2; bits; bits /= 2) x += __shfl_xor_sync(mask, x, bits);
  return x;
}
__device__ __forceinline__ Complex group_sum(Complex x) { return {group_sum(x.re), group_sum(x.im)}; }
__device__ __forceinline__ Real group_max(Real x) {
  const unsigned mask = group_mask();
#pragma unroll
  for (int bits = LANES / 2; bits; bits /= 2) x = fmax(x, __shfl_xor_sync(mask, x, bits));
  return x;
}

// The e with 1 <= x 2**-e < 2, and products with powers of 2, which neither overflow nor underflow on the way.
__device__ __forceinline__ int exponent(Real x) { return x > 0 ? ilogb(x) : 0; }
struct Power {
  Real first, second;
};
__device__ __forceinline__ Power power(int e) { return {ldexp(Real(1), e / 2), ldexp(Real(1), e - e / 2)}; }
__device__ __forceinline__ Real operator*(Power p, Real x) { return x * p.first * p.second; }
__device__ __forceinline__ Complex operator*(Power p, Complex x) { return {p * x.re, p * x.im}; }
