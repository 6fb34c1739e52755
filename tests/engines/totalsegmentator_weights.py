"""Random weights in the layout of TotalSegmentator's, for a Python that has it.

    python totalsegmentator_weights.py FOLDER

The models are those of 3 mm (297) and of 6 mm, which finds where to look (298): nnU-Nets of two
stages, so that a CPU is done within seconds; the real ones have six.
"""

import json
import sys
from pathlib import Path

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS
from totalsegmentator.map_to_binary import class_map

TRAINER = "nnUNetTrainer_4000epochs_NoMirroring"
PATCH = [32, 32, 32]
STAGES = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 2,
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
NETWORK = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
IMPORTED = ["conv_op", "norm_op", "dropout_op", "nonlin"]


def plans(name: str, spacing_mm: float) -> dict:
    resample = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": name,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [spacing_mm] * 3,
        "original_median_shape_after_transp": [64] * 3,
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": 0.0,
                "std": 300.0,
                "percentile_00_5": -1000.0,
                "percentile_99_5": 1000.0,
                "max": 3000.0,
                "min": -1024.0,
                "median": 0.0,
            }
        },
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": PATCH,
                "median_image_size_in_voxels": [64.0] * 3,
                "spacing": [spacing_mm] * 3,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resample,
                "resampling_fn_seg_kwargs": resample | {"is_seg": True, "order": 1},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resample | {"order": 1},
                "batch_dice": False,
                "architecture": {
                    "network_class_name": NETWORK,
                    "arch_kwargs": STAGES,
                    "_kw_requires_import": IMPORTED,
                },
            }
        },
    }


def write(root: Path, task_id: int, spacing_mm: float) -> None:
    name = TASK_ID_WEIGHTS_CONFIGS[task_id]["foldername"]
    labels = {"background": 0} | {label: i for i, label in class_map["total"].items()}
    folder = root / name / f"{TRAINER}__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    made = plans(name, spacing_mm)
    data = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1}
    (folder / "plans.json").write_text(json.dumps(made))
    (folder / "dataset.json").write_text(json.dumps(data | {"file_ending": ".nii.gz"}))
    torch.manual_seed(task_id)
    net = get_network_from_plans(NETWORK, STAGES, IMPORTED, 1, len(labels), deep_supervision=False)
    checkpoint = {
        "network_weights": net.state_dict(),
        "init_args": {"configuration": "3d_fullres", "plans": made, "dataset_json": data},
        "trainer_name": TRAINER,
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


if __name__ == "__main__":
    write(Path(sys.argv[1]), 297, 3.0)
    write(Path(sys.argv[1]), 298, 6.0)
