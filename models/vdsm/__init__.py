"""VDSM: Vowels, Camgöz, Bowden, 'VDSM: Unsupervised Video Disentanglement with State-Space
Modeling and Deep Mixtures of Experts', CVPR 2021.

Stage 1 (EncDec; 'pre-training' in the paper) learns s and z from single frames. Stage 2 (Seq;
'sequence training') learns d and how z moves. Equation numbers are those of the supplementary.

Meaning                    Paper     Code                 Flags                Shape
-------------------------- --------- -------------------- -------------------- -----------------
clips in a batch           n         N, clips             --bs                 N
frames of a clip           t, T_n    T, frames            --seq_len            T
frames in the likelihood   -         P, picked            --frames_per_clip    P
frame                      x_t^n     x                    -                    [N, T, 3, 64, 64]
identity                   s^n       s                    -                    [N, K]
experts, size of s         N_s, κ_s  K, experts           --n_e_w              K
mixing weights             -         w                    -                    [N, K]
temperature                τ_s       tau, temperature     --temp_id_*          1
  of stage-1 pictures      -         temperature          --test_temp_id       1
pose                       z_t^n     z; stage 2: z_1, z   -                    [N, T, pose_dim]
size of z                  κ_z       pose_dim             --z_dim              pose_dim
dynamics (action)          d^n       d                    -                    [N, dynamics_dim]
size of d                  κ_d       dynamics_dim         --dynamics_dim       dynamics_dim
size of the LSTMs          RNN_dim   R, rnn_dim           --rnn_dim            rnn_dim
layers of the LSTMs        -         L, rnn_layers        --rnn_layers         rnn_layers
output of seq2seq decoder  h_t^n     h                    -                    [N, T, rnn_dim]
KL weight of s             λ_s       weights['s']         --anneal_*_id        1
KL weight of d             λ_d       weights['d']         --anneal_*_dynamics  1
KL weight of z             λ_z       weights['z']         --anneal_*_t*        1
mean of a Normal           μ         loc, z_loc, ...      -                    of its variable
standard deviation         σ         scale, z_scale, ...  --start data         of its variable
generative model           p_θ       model                -                    -
inference model            q_φ       guide                -                    -

The mixing weights are w = softmax(tau s). In stage 2 the site 'z_1' is the first pose, and the site
'z' holds the poses z_2:T. Encoders and decoders also take frames without their clips: B frames,
[B, 3, 64, 64]. The second parameter of every Normal is a standard deviation: the priors are
s ~ N(0, 1/K), d ~ N(0, 1/dynamics_dim) and z_1 ~ N(0, 1).
"""
