"""Flags of a run that takes a second, on the few pendula of tests/conftest.py."""

FEW = {"train": 16, "val": 8, "test": 8}
TINY = (
    "--preset demo --epochs 4 --bs_per_epoch 2 --bs 2 --num_test_ids 2 --model_save_interval 1 "
    "--model_test_interval 4 "
    "--z_dim 4 --n_e_w 3 --enc_widths 4,4,4,4,8 --dec_widths 8,8,4,4 --rnn_dim 8 --dynamics_dim 4 "
    "--whiten_identity False --near_poses 0 "
    "--evaluate none --report False --tboard_log False --device cpu --threads 1"
).split()
STAGE_1, STAGE_2 = (
    ["--train_VDSMSeq", "False"],
    ["--train_VDSMEncDec", "False"],
)  # after TINY: one stage alone
TEST = STAGE_1 + STAGE_2  # neither
