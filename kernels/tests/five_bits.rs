//! Q5_0 blocks against the values that another program gives them.

mod embedded;

use kernels::WeightFormat;

#[test]
fn blocks_of_five_bits_are_what_llama_cpp_takes_them_for() {
    for weights in embedded::by_twins(WeightFormat::Q5_0, &STORED, 32) {
        assert_eq!(
            weights
                .iter()
                .map(|weight| weight.to_bits())
                .collect::<Vec<u32>>(),
            EXPECTED
        );
    }
}

/// Two blocks of random bytes, but for the scale. Made, with what is expected of them, by llama.cpp's package `gguf` (0.19.0 from
/// PyPI):
///
/// ```python
/// blocks = numpy.random.default_rng(5).integers(0, 256, (2, 22), numpy.uint8)
/// blocks[:, :2] = [[0x66, 0x0A], [0x9A, 0xB9]]
/// expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q5_0).view(numpy.uint32)
/// ```
const STORED: [u8; 2 * 22] = [
    102, 10, 184, 171, 238, 171, 20, 206, 245, 153, 204, 5, 37, 53, 213, 206, 192, 173, 6, 120, 63, 96, 154,
    185, 118, 4, 87, 161, 124, 71, 42, 73, 237, 16, 194, 250, 10, 103, 206, 13, 143, 2, 38, 71,
];

/// Bits of f32.
const EXPECTED: [u32; 2 * 32] = [
    0xbb199000, 0xb9ccc000, 0xbb0cc400, 0x3ae65800, 0x3b199000, 0x3a7ff000, 0xbb0cc400, 0x3a7ff000,
    0x3a7ff000, 0x3b332800, 0xbb4cc000, 0x3b265c00, 0xbafff000, 0x3accc000, 0xb94cc000, 0x00000000,
    0xbb3ff400, 0x3b199000, 0x3b3ff400, 0x3ae65800, 0xba4cc000, 0x00000000, 0x39ccc000, 0x3a199000,
    0x3b265c00, 0x3b199000, 0xba4cc000, 0x3afff000, 0xbb4cc000, 0x3ab32800, 0xbb265c00, 0x3a999000,
    0x40334000, 0xc09cd800, 0xc0e01000, 0x409cd800, 0xc111a400, 0x80000000, 0xbfb34000, 0x40867000,
    0x40867000, 0x40c9a800, 0xc11cd800, 0x40067000, 0x3f334000, 0x411cd800, 0x40e01000, 0x40c9a800,
    0xc09cd800, 0xc0334000, 0xbfb34000, 0x41067000, 0xc11cd800, 0x41280c00, 0xc1067000, 0x3f334000,
    0x80000000, 0x40e01000, 0x40334000, 0x41334000, 0x40b34000, 0x80000000, 0x411cd800, 0xc0334000,
];
