"""Storing the two-bit fields of Q2_K and Q3_K: 32 bytes at a time, as eight int32."""

from __future__ import annotations

from edgeq.kernels_cpu import simd
from edgeq.kernels_cpu.jit import helper


@helper
def store_two_bits(isa, codes, at):
    """The lower two bits of 256 codes (uint8) to 64 bytes at an address (see ``pack_two_bits`` in formats)."""
    eight = simd.resized(isa, 8)
    for half in range(2):
        source = simd.address(codes) + 128 * half
        packed = simd.splat(eight, 0)
        for k in range(4):
            packed = packed | ((simd.load_int32(eight, source + 32 * k) & 0x03030303) << (2 * k))
        simd.store(at + 32 * half, packed)


@helper
def store_third_bits(isa, codes, at):
    """The third bits of 256 codes (uint8) to 32 bytes: bit s of byte i is that of code 32·s + i."""
    eight = simd.resized(isa, 8)
    packed = simd.splat(eight, 0)
    for s in range(8):
        bits = (simd.load_int32(eight, simd.address(codes) + 32 * s) >> 2) & 0x01010101
        packed = packed | (bits << s)
    simd.store(at, packed)
