// CUDA C++ for one thread of a CPU: enough of it to run the kernels of cutnn and look at their values.
//
// A thread of a block is a fibre, which runs until it waits for others: at __syncthreads for its block, at a shuffle or
// a vote for the lanes of its mask. Blocks run one after the other. What waits for ever is reported, with the place.

#pragma once
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <ucontext.h>
#include <vector>

#define CUTNN_ON_HOST 1
#define __CUDA_ARCH__ 900
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct uint3 { unsigned x = 0, y = 0, z = 0; };
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
#define CUTNN_VECTORS(T)                                                        \
  struct alignas(2 * sizeof(T)) T##2 { T x, y; };                               \
  struct alignas(sizeof(T) > 4 ? 16 : 4 * sizeof(T)) T##4 { T x, y, z, w; };    \
  inline T##2 make_##T##2(T x, T y) { return {x, y}; }                          \
  inline T##4 make_##T##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUTNN_VECTORS(float)
CUTNN_VECTORS(double)
CUTNN_VECTORS(int)
#undef CUTNN_VECTORS

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace cutnn_host {

struct Meeting {  // of the lanes of a mask
  unsigned mask, arrived = 0;
  uint64_t brought[32][2], published[32][2];
};

static const size_t stack_size = 1 << 18;

struct Fibre {
  ucontext_t start;
  jmp_buf place;
  bool begun = false, done = false;
  uint3 index;
  int number;
  const char* waits_for = nullptr;
  std::unique_ptr<char[]> stack{new char[stack_size]};  // pages come as they are written to
};

static std::vector<Fibre> fibres;
static std::vector<std::vector<Meeting>> warps;
static std::vector<int> ready;
static std::vector<double> shared_memory;
static jmp_buf scheduler;
static Fibre* current;
static int waiting, threads;
static uint64_t order;
static std::string fault;
static void (*entry)();

[[noreturn]] inline void leave() { _longjmp(scheduler, 1); }

[[noreturn]] __attribute__((noinline)) inline void fail(const std::string& what) {
  if (fault.empty()) fault = what;
  leave();
}

__attribute__((noinline)) inline void wait(const char* what) {
  current->waits_for = what;
  if (_setjmp(current->place) == 0) leave();
}

inline void release(std::vector<int>& some) {  // in an order drawn from the seed; as they come for seed 0
  for (size_t i = some.size(); order && i > 1; --i) {
    order = order * 6364136223846793005u + 1442695040888963407u;
    std::swap(some[i - 1], some[(order >> 33) % i]);
  }
  for (int k : some) fibres[k].waits_for = nullptr;
  ready.insert(ready.end(), some.begin(), some.end());
}

inline void meet_block() {
  if (++waiting == threads) {
    waiting = 0;
    std::vector<int> others;
    for (int k = 0; k < threads; ++k)
      if (k != current->number) others.push_back(k);
    release(others);
  } else {
    wait("__syncthreads");
  }
}

// Each lane of the mask brings a value; all go on when all are there. Returns what they brought, by lane.
inline const uint64_t (*meet_warp(unsigned mask, const void* value, size_t size, const char* what))[2] {
  const int lane = current->number % 32, warp = current->number / 32;
  if (!(mask >> lane & 1)) fail(std::string(what) + ": the mask leaves out the lane that calls");
  Meeting* meeting = nullptr;
  for (Meeting& other : warps[warp])
    if (other.mask == mask) meeting = &other;
  if (!meeting) {
    warps[warp].push_back({});
    meeting = &warps[warp].back();
    meeting->mask = mask;
  }
  std::memcpy(meeting->brought[lane], value, size);
  meeting->arrived |= 1u << lane;
  const size_t place = meeting - warps[warp].data();
  if (meeting->arrived == mask) {
    meeting->arrived = 0;
    std::memcpy(meeting->published, meeting->brought, sizeof meeting->brought);
    std::vector<int> others;
    for (int k = 0; k < 32; ++k)
      if ((mask >> k & 1) && k != lane) others.push_back(32 * warp + k);
    release(others);
  } else {
    wait(what);
  }
  return warps[warp][place].published;
}

template <class T>
T from_lane(unsigned mask, T value, int source, const char* what) {
  static_assert(sizeof(T) <= 16 && std::is_trivially_copyable_v<T>);
  const auto values = meet_warp(mask, &value, sizeof(T), what);
  if (!(mask >> source & 1)) fail(std::string(what) + ": reads a lane that the mask leaves out");
  std::memcpy(&value, values[source], sizeof(T));
  return value;
}

inline unsigned vote(unsigned mask, int predicate, const char* what) {
  const int value = predicate != 0;
  const auto values = meet_warp(mask, &value, sizeof value, what);
  unsigned result = 0;
  for (int k = 0; k < 32; ++k)
    if (mask >> k & 1) result |= unsigned(*reinterpret_cast<const int*>(values[k])) << k;
  return result;
}

inline void trampoline() {
  entry();
  current->done = true;
  leave();
}

static int turn;  // outlives the jumps, as no local variable need do
__attribute__((noinline)) inline void run_block() {
  fibres.resize(threads);
  warps.assign((threads + 31) / 32, {});
  for (auto& warp : warps) warp.reserve(64);
  ready.clear();
  waiting = 0;
  std::vector<int> all;
  for (int k = 0; k < threads; ++k) {
    Fibre& fibre = fibres[k];
    fibre.begun = fibre.done = false;
    fibre.number = k;
    fibre.index = {k % blockDim.x, k / blockDim.x % blockDim.y, k / (blockDim.x * blockDim.y)};
    getcontext(&fibre.start);
    fibre.start.uc_stack.ss_sp = fibre.stack.get();
    fibre.start.uc_stack.ss_size = stack_size;
    fibre.start.uc_link = nullptr;
    makecontext(&fibre.start, trampoline, 0);
    all.push_back(k);
  }
  release(all);
  for (turn = 0; turn < int(ready.size());) {
    if (turn > 1 << 16) {
      ready.erase(ready.begin(), ready.begin() + turn);
      turn = 0;
    }
    current = &fibres[ready[turn++]];
    threadIdx = current->index;
    if (_setjmp(scheduler) == 0) {
      if (current->begun) _longjmp(current->place, 1);
      current->begun = true;
      setcontext(&current->start);
    }
    if (!fault.empty()) return;
  }
  for (const Fibre& fibre : fibres)
    if (!fibre.done) {
      fault = "thread " + std::to_string(fibre.number) + " waits for ever at " + fibre.waits_for +
              ": others have ended, or wait elsewhere";
      return;
    }
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_const_t<A>*>(arguments[I])...);
}

// The sizes of the parameters of a kernel, and the kernel for every thread of every block.
template <class... A>
int parameters(void (*)(A...), size_t* sizes) {
  const size_t all[] = {sizeof(A)..., 0};
  std::memcpy(sizes, all, sizeof...(A) * sizeof(size_t));
  return sizeof...(A);
}

template <class... A>
const char* launch(void (*kernel)(A...), const unsigned* shape, size_t shared_bytes, void** arguments, uint64_t seed) {
  static void (*the_kernel)(A...);
  static void** the_arguments;
  the_kernel = kernel, the_arguments = arguments;
  entry = [] { call(the_kernel, the_arguments, std::index_sequence_for<A...>()); };
  fault.clear();
  order = seed;
  gridDim = {shape[0], shape[1], shape[2]}, blockDim = {shape[3], shape[4], shape[5]};
  threads = blockDim.x * blockDim.y * blockDim.z;
  const size_t guard = 64;
  shared_memory.resize((shared_bytes + 7) / 8 + guard / 8);
  char* memory = reinterpret_cast<char*>(shared_memory.data());
  for (unsigned z = 0; z < gridDim.z; ++z)
    for (unsigned y = 0; y < gridDim.y; ++y)
      for (unsigned x = 0; x < gridDim.x; ++x) {
        blockIdx = {x, y, z};
        std::memset(memory, 0xff, shared_bytes + guard);  // floating point numbers read unwritten are nan
        run_block();
        for (size_t k = 0; k < guard && fault.empty(); ++k)
          if (static_cast<unsigned char>(memory[shared_bytes + k]) != 0xff)
            fault = "writes beyond the " + std::to_string(shared_bytes) + " bytes of shared memory";
        if (!fault.empty()) {
          fault += " (block " + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
          return fault.c_str();
        }
      }
  return nullptr;
}

}  // namespace cutnn_host

// ------------------------------------------------------------------------------------ barriers, shuffles and votes

#define __syncthreads() cutnn_host::meet_block()
inline void __syncwarp(unsigned mask = ~0u) {
  int nothing = 0;
  cutnn_host::meet_warp(mask, &nothing, sizeof nothing, "__syncwarp");
}
inline int __syncthreads_or(int predicate) {
  static int any;
  any = 0;
  cutnn_host::meet_block();
  any |= predicate != 0;
  cutnn_host::meet_block();
  const int result = any;
  cutnn_host::meet_block();
  return result;
}
inline int __syncthreads_and(int predicate) { return !__syncthreads_or(!predicate); }
inline int __syncthreads_count(int predicate) {
  static int count;
  count = 0;
  cutnn_host::meet_block();
  count += predicate != 0;
  cutnn_host::meet_block();
  const int result = count;
  cutnn_host::meet_block();
  return result;
}

inline int cutnn_lane() { return cutnn_host::current->number % 32; }
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return cutnn_host::from_lane(mask, value, (cutnn_lane() & -width) + (source & (width - 1)), "__shfl_sync");
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = cutnn_lane(), source = lane ^ bits;
  return cutnn_host::from_lane(mask, value, source < (lane & -width) + width ? source : lane, "__shfl_xor_sync");
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned step, int width = 32) {
  const int lane = cutnn_lane(), source = lane + step;
  return cutnn_host::from_lane(mask, value, source < (lane & -width) + width ? source : lane, "__shfl_down_sync");
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned step, int width = 32) {
  const int lane = cutnn_lane(), source = lane - int(step);
  return cutnn_host::from_lane(mask, value, source >= (lane & -width) ? source : lane, "__shfl_up_sync");
}
inline unsigned __ballot_sync(unsigned mask, int p) { return cutnn_host::vote(mask, p, "__ballot_sync"); }
inline int __any_sync(unsigned mask, int p) { return cutnn_host::vote(mask, p, "__any_sync") != 0; }
inline int __all_sync(unsigned mask, int p) { return cutnn_host::vote(mask, p, "__all_sync") == mask; }
inline void __threadfence() {}
inline void __threadfence_block() {}

// ----------------------------------------------------------------- atomics (fibres do not interrupt one another)

template <class T, class U> T atomicAdd(T* at, U x) { T old = *at; *at = T(old + x); return old; }
template <class T, class U> T atomicSub(T* at, U x) { T old = *at; *at = T(old - x); return old; }
template <class T, class U> T atomicMax(T* at, U x) { T old = *at; if (T(x) > old) *at = T(x); return old; }
template <class T, class U> T atomicMin(T* at, U x) { T old = *at; if (T(x) < old) *at = T(x); return old; }
template <class T, class U> T atomicOr(T* at, U x) { T old = *at; *at = T(old | x); return old; }
template <class T, class U> T atomicAnd(T* at, U x) { T old = *at; *at = T(old & x); return old; }
template <class T, class U> T atomicExch(T* at, U x) { T old = *at; *at = T(x); return old; }
template <class T, class U, class V> T atomicCAS(T* at, U compare, V x) {
  T old = *at;
  if (old == T(compare)) *at = T(x);
  return old;
}

// --------------------------------------------------------------------------------------------------- arithmetic

using std::abs, std::acos, std::asin, std::atan, std::atan2, std::cbrt, std::ceil, std::copysign, std::cos, std::cosh;
using std::erf, std::erfc, std::exp, std::exp2, std::expm1, std::fabs, std::floor, std::fma, std::fmax, std::fmin;
using std::fmod, std::frexp, std::hypot, std::ilogb, std::isfinite, std::isinf, std::isnan, std::ldexp, std::log;
using std::log10, std::log1p, std::log2, std::pow, std::rint, std::round, std::scalbn, std::signbit, std::sin;
using std::sinh, std::sqrt, std::tan, std::tanh, std::trunc;
template <class T, class U> constexpr std::common_type_t<T, U> max(T a, U b) {
  using R = std::common_type_t<T, U>;
  if constexpr (std::is_floating_point_v<R>) return std::fmax(R(a), R(b));
  return R(a) > R(b) ? R(a) : R(b);
}
template <class T, class U> constexpr std::common_type_t<T, U> min(T a, U b) {
  using R = std::common_type_t<T, U>;
  if constexpr (std::is_floating_point_v<R>) return std::fmin(R(a), R(b));
  return R(a) < R(b) ? R(a) : R(b);
}
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float rsqrt(float x) { return 1 / std::sqrt(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
template <class T> T __ldg(const T* p) { return *p; }
inline int __float_as_int(float x) { int y; std::memcpy(&y, &x, 4); return y; }
inline float __int_as_float(int x) { float y; std::memcpy(&y, &x, 4); return y; }
inline long long __double_as_longlong(double x) { long long y; std::memcpy(&y, &x, 8); return y; }
inline double __longlong_as_double(long long x) { double y; std::memcpy(&y, &x, 8); return y; }
