"""ZipNN, OpenZL and blosc2 on .npy files of bf16 bits: one JSON line for each file and compressor."""

import json
import statistics
import sys
import time

import numpy as np

ROUNDS = 5


def blosc2_codec():
    import blosc2

    blosc2.set_nthreads(1)
    params = {"typesize": 2, "clevel": 1, "codec": blosc2.Codec.ZSTD, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    return (lambda b: blosc2.compress2(b, **params)), blosc2.decompress2


def zipnn_codec():
    import zipnn

    z = zipnn.ZipNN(input_format="byte", bytearray_dtype="bfloat16", threads=1)
    return (lambda b: z.compress(bytearray(b))), z.decompress


def openzl_codec():
    import openzl.ext as zl

    compressor = zl.Compressor()
    entropy = zl.graphs.Entropy()(compressor)
    store = zl.graphs.Store()(compressor)
    graph = zl.nodes.BFloat16Deconstruct()(compressor, sign_frac=store, exponent=entropy)
    graph = zl.nodes.ConvertSerialToNumLE16()(compressor, graph)
    compressor.select_starting_graph(graph)

    def encode(data):
        context = zl.CCtx()
        context.ref_compressor(compressor)
        context.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
        return context.compress([zl.Input(zl.Type.Serial, data)])

    def decode(data):
        return bytes(zl.DCtx().decompress(data)[0].content.as_bytes())

    return encode, decode


def main():
    codecs = {}
    for name, make in {"zipnn": zipnn_codec, "openzl": openzl_codec, "blosc2 shuffle zstd1": blosc2_codec}.items():
        try:
            codecs[name] = make()
        except Exception as error:  # noqa: BLE001 - a peer that is not there is reported, not fatal
            print(f"{name} is left out: {error!r}", file=sys.stderr)
    for path in sys.argv[1:]:
        data = np.load(path).tobytes()
        for name, (encode, decode) in codecs.items():
            try:
                times = ([], [])
                for _ in range(ROUNDS + 1):
                    a = time.process_time_ns()
                    packed = encode(data)
                    b = time.process_time_ns()
                    back = decode(packed)
                    c = time.process_time_ns()
                    times[0].append(b - a)
                    times[1].append(c - b)
                if bytes(back) != data:
                    raise ValueError("did not give back the tensor")
                row = {
                    "file": path,
                    "codec": name,
                    "bytes": len(data),
                    "compressed_bytes": len(packed),
                    "encode_s": statistics.median(times[0][1:]) / 1e9,
                    "decode_s": statistics.median(times[1][1:]) / 1e9,
                }
                print(json.dumps(row), flush=True)
            except Exception as error:  # noqa: BLE001
                print(f"{name} on {path}: {error!r}", file=sys.stderr)


main()
