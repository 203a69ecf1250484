"""The flags of the release, as its users know them."""

RELEASE = {  # every flag of the release with its default, as its users know them
    "RUN": "001", "test_harness": False, "bs": 30, "seq_len": 20, "seed": 0, "epochs": 200,
    "bs_per_epoch": 2, "num_test_ids": 1, "data_dir": "./data/", "dataset_name": "MUG-FED",
    "pretrained_model_VDSMEncDec": None, "pretrained_model_VDSMSeq": None,
    "train_VDSMEncDec": False, "train_VDSMSeq": False, "tboard_log": True,
    "model_test_interval": 1, "model_save_interval": 2, "z_dim": 20, "n_e_w": 15,
    "temp_id_end": 1, "temp_id_start": 2, "temp_id_frac": 1, "anneal_end_id": 0.8,
    "anneal_start_id": 0.1, "anneal_frac_id": 2, "anneal_start_t": 10, "anneal_mid_t1": 0.1,
    "anneal_mid_t2": 0.1, "anneal_end_t": 1, "anneal_t_midfrac1": 0.3, "anneal_t_midfrac2": 0.6,
    "T_0_frac": 6, "T_mult": 1, "lr_VDSMEncDec": 0.001, "dynamics_dim": 10, "test_temp_id": 10,
    "trans_dim": 64,
    "rnn_dim": 512, "rnn_dropout": 0, "rnn_layers": 3, "lr_VDSMSeq": 0.001, "lr_resume": None,
    "anneal_end_dynamics": 1, "anneal_start_dynamics": 0.01, "anneal_frac_dynamics": 1,
    # unset here, which means the folder of the run
    "image_path": None, "model_save_path": None, "log_dir": None, "code_path": None,
}  # fmt: skip


# --- flags ---
