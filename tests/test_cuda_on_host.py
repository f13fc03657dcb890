"""The means by which kernels run on the host: what it computes, and that it notices what a GPU would not tell."""

from __future__ import annotations

import numpy as np
import pytest

from tests import cuda_on_host
from tests.cuda_on_host import KernelFault, RawKernel, needs_compiler

pytestmark = needs_compiler

SUMS = r"""
template <class T> __device__ T warp_sum(T x) {
  for (int bits = 16; bits; bits >>= 1) x += __shfl_xor_sync(0xffffffffu, x, bits);
  return x;
}
template <class T> __global__ void sums(const T* __restrict__ x, T* out, int columns) {
  __shared__ T parts[32];
  extern __shared__ __align__(16) unsigned char memory[];
  T* row = reinterpret_cast<T*>(memory);
  for (int j = threadIdx.x; j < columns; j += blockDim.x) row[j] = x[(size_t)blockIdx.x * columns + j];
  __syncthreads();
  T total = 0;
  for (int j = threadIdx.x; j < columns; j += blockDim.x) total += row[columns - 1 - j];
  total = warp_sum(total);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = total;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int k = 1; k < blockDim.x / 32; ++k) total += parts[k];
    out[blockIdx.x] = total;
  }
}
"""


@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("threads", [32, 96])
def test_sums_by_shared_memory_and_shuffles(kind, threads):
    x = np.arange(7 * 50, dtype=kind if kind == "double" else "float32").reshape(7, 50)
    kernel = RawKernel(SUMS, f"sums<{kind}>")

    def run():
        out = np.zeros(7, x.dtype)
        kernel((7,), (threads,), (x, out, np.int32(50)), shared_mem=50 * x.itemsize)
        return out

    np.testing.assert_array_equal(cuda_on_host.same_for_all_orders(run), x.sum(axis=1))


def test_shuffles_votes_and_atomics():
    text = r"""
    extern "C" __global__ void f(int* out) {
      const int k = threadIdx.x;
      int* row = out + 6 * k;
      row[0] = __shfl_sync(~0u, k, 3, 8);
      row[1] = __shfl_down_sync(~0u, k, 2, 16);
      row[2] = __shfl_up_sync(~0u, k, 1);
      row[3] = __ballot_sync(~0u, k == 5 || k == 0) + 100 * __any_sync(~0u, k > 30) + 1000 * __all_sync(~0u, k > 0);
      row[4] = k < 8 ? __shfl_xor_sync(0xffu, k, 1) : __shfl_xor_sync(0xffffff00u, k, 4);
      atomicAdd(out + 6 * 32, k);
      row[5] = __syncthreads_or(k == 7) + 10 * __syncthreads_and(k == 7) + 100 * __syncthreads_count(k < 9);
    }"""

    def run():
        out = np.zeros(6 * 32 + 1, np.int32)
        RawKernel(text, "f")((1,), (32,), (out,))
        return out

    out = cuda_on_host.same_for_all_orders(run)
    k = np.arange(32)
    rows = out[:-1].reshape(32, 6).T
    np.testing.assert_array_equal(rows[0], k // 8 * 8 + 3)
    np.testing.assert_array_equal(rows[1], np.where(k % 16 < 14, k + 2, k))
    np.testing.assert_array_equal(rows[2], np.where(k > 0, k - 1, k))
    np.testing.assert_array_equal(rows[3], 33 + 100)
    np.testing.assert_array_equal(rows[4], np.where(k < 8, k ^ 1, k ^ 4))
    np.testing.assert_array_equal(rows[5], 1 + 900)
    assert out[-1] == 31 * 16


def kernel(body: str, parameters: str = "float* x, int n") -> RawKernel:
    return RawKernel(f'extern "C" __global__ void f({parameters}) {{ {body} }}', "f")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (threadIdx.x) __syncthreads();", "thread 1 waits for ever at __syncthreads"),
        ("if (threadIdx.x < 7) x[0] = __shfl_sync(~0u, x[0], 0);", "waits for ever at __shfl_sync"),
        ("x[0] = __shfl_sync(0xffu << (threadIdx.x & ~7), x[0], 9, 16);", "lane that the mask leaves out"),
        ("x[0] = __shfl_sync(1u, x[0], 0);", "leaves out the lane that calls"),
        ("x[n] = 1;", "writes after an array of shape"),
        ("x[-1] = 1;", "writes before an array of shape"),
        ("extern __shared__ float s[]; s[8] = 1;", "beyond the 32 bytes of shared memory"),
    ],
)
def test_faults_are_named(body, message):
    with pytest.raises(KernelFault, match=message):
        kernel(body)((1,), (32,), (np.zeros(4, np.float32), np.int32(4)), shared_mem=32)


def test_wrong_calls_are_named():
    f = kernel("x[0] = n;")
    x = np.zeros(4, np.float32)
    for grid, block, args, shared, message in (
        ((1,), (32,), (x,), 0, "1 arguments for 2 parameters"),
        ((1,), (32,), (x, np.int64(4)), 0, "argument 1, .* has 8 bytes, the parameter 4"),
        ((1,), (2048,), (x, np.int32(4)), 0, "blocks of"),
        ((1,), (32,), (x, np.int32(4)), 50000, "50000 bytes of shared memory, allowed 49152"),
    ):
        with pytest.raises(KernelFault, match=message):
            f(grid, block, args, shared_mem=shared)
    with pytest.raises(KernelFault, match="does not compile"):
        kernel("x[0] = unknown;")((1,), (1,), (x, np.int32(1)))
    x.flags.writeable = False
    with pytest.raises(KernelFault, match="read-only"):
        f((1,), (1,), (x, np.int32(1)))


def test_a_missing_barrier_shows_in_another_order():
    f = kernel(
        "extern __shared__ float s[]; s[threadIdx.x] = x[threadIdx.x]; x[threadIdx.x] = s[n - 1 - threadIdx.x];"
    )

    def run():
        x = np.arange(32, dtype=np.float32)
        f((1,), (32,), (x, np.int32(32)), shared_mem=128)
        return x

    with pytest.raises(AssertionError, match="order of the threads"):
        cuda_on_host.same_for_all_orders(run)
