"""Batches of images through a small network in ONNX Runtime: few calls, each of them long."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import report

SIZE, BATCH, WIDTH = 64, 8, 24


def network():
    rng = np.random.default_rng(0)
    nodes, weights, last, channels = [], [], "image", 3
    for layer in range(6):
        weight, out = "w%d" % layer, "y%d" % layer
        values = rng.standard_normal((WIDTH, channels, 3, 3), dtype=np.float32) * np.float32(0.1)
        weights.append(numpy_helper.from_array(values, weight))
        nodes.append(helper.make_node("Conv", [last, weight], [out + "c"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [out + "c"], [out]))
        last, channels = out, WIDTH
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    shape = ["N", 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["N", WIDTH, 1, 1])],
        initializer=weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def open_session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(network(), options, providers=["CPUExecutionProvider"])


def prepare(images):
    x = images.astype(np.float32) / 255 - np.float32(0.5)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def classify(session, images):
    (pooled,) = session.run(None, {"image": prepare(images)})
    return int(pooled.reshape(len(images), WIDTH).argmax(axis=1).sum())


def main(scale):
    session = open_session()
    images = np.random.default_rng(1).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    return sum(classify(session, images) for _ in range(int(110 * scale)))


if __name__ == "__main__":
    print(main(report.scale()))
