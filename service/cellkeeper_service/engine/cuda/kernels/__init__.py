"""Triton kernels: the only modules that import triton.

    products     one tile of a matrix product, by precision, in an order that nothing changes
    pointwise    exp, expm1, tanh, sigmoid, softplus, sinh, erf and the activations made of them to a few ulp, from
                 additions, products and divisions alone
    preprocess   the inputs as they came -> what the first layer takes
    recurrent    one time step of one layer: LSTM, GRU, RNN
    dense        a projection, and the layers of the head
    transform    the output transforms, softmax among them
    finish       the states after the last step -> the arena, and the finite flags

Every argument that depends on the batch, the time step or the buffer is a plain integer that the compiler does not
specialize on, so one binary serves every batch and every chunk: see "What decides the bits" in `cells`.
"""
