#!/usr/bin/env python3
"""Files quantised by marco and by llama.cpp from the same weights (SmolLM2-135M): the types of the
tensors, their bytes where both must write the same, else their error; and both in llama.cpp.

    quantize.py [TYPE ...]
"""

import os
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

import results

FTYPES = {
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q6_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "Q5_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "IQ4_XS": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_XS,
}
# Written the same, byte for byte; of the others the error may not be larger.
SAME = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}
N_TOKENS = 400
KL_RATIO = 1.1


def theirs(source, to, name):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FTYPES[name]
    if llama_cpp.llama_model_quantize(source.encode(), to.encode(), params):
        sys.exit(f"llama.cpp could not write {name}")


def tensors(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def numbers(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)


def file_type(path):
    return int(gguf.GGUFReader(path).get_field("general.file_type").contents())


def compare_types(name, a_path, b_path):
    a, b = tensors(a_path), tensors(b_path)
    wrong = [n for n in a if n not in b or a[n].tensor_type != b[n].tensor_type]
    same = a.keys() == b.keys() and file_type(a_path) == file_type(b_path)
    results.row(
        f"{name}: types of tensors, with llama.cpp's file",
        "all the same, and general.file_type",
        f"{len(a) - len(wrong)} of {len(a)}, file_type {'equal' if same else 'differs'}",
        same and not wrong,
    )


def compare_numbers(name, source, a_path, b_path):
    original, a, b = tensors(source), tensors(a_path), tensors(b_path)
    for kind in sorted({t.tensor_type.name for t in b.values()}):
        group = [n for n in b if b[n].tensor_type.name == kind == a[n].tensor_type.name]
        if kind in SAME:
            same = sum(np.array_equal(a[n].data, b[n].data) for n in group)
            bar, seen, passed = "same bytes", f"{same} of {len(group)}", same == len(group)
        else:
            x = {n: numbers(original[n]) for n in group}
            ours, llama = (
                sum(np.sum((numbers(file[n]) - x[n]) ** 2) for n in group) ** 0.5 for file in (b, a)
            )
            bar = "root mean square error no larger"
            seen, passed = f"{ours / llama:.3f} of llama.cpp's", ours <= llama
        results.row(f"{name}: {len(group)} tensors of {kind}", bar, seen, passed)


def log_softmax(path):
    model = llama_cpp.Llama(path, n_ctx=N_TOKENS, n_batch=N_TOKENS, logits_all=True, verbose=False)
    with open(os.path.join(results.REPOSITORY, "docs", "correctness.md"), "rb") as f:
        ids = model.tokenize(f.read())[:N_TOKENS]
    model.eval(ids)
    x = np.asarray(model.scores[: len(ids)], np.float64)
    model.close()
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def compare_models(name, reference, a_path, b_path):
    llama, ours = (
        float(np.sum(np.exp(reference) * (reference - log_softmax(p)), -1).mean())
        for p in (a_path, b_path)
    )
    results.row(
        f"{name} in llama.cpp: mean KL divergence from F16",
        f"at most {KL_RATIO} of that of llama.cpp's own file",
        f"{ours:.5f} against {llama:.5f}",
        ours <= KL_RATIO * llama,
    )


def main():
    with tempfile.TemporaryDirectory() as scratch:
        source, a, b = (os.path.join(scratch, n) for n in ("f16.gguf", "llama.gguf", "marco.gguf"))
        results.marco("convert", results.parent(), source, "--type", "F16", "-q")
        reference = log_softmax(source)
        for name in sys.argv[1:] or FTYPES:
            theirs(source, a, name)
            results.marco("quantize", source, b, "--type", name, "--overwrite", "-q")
            compare_types(name, a, b)
            compare_numbers(name, source, a, b)
            compare_models(name, reference, a, b)
    results.finish()


if __name__ == "__main__":
    main()
