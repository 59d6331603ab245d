"""Public benchmarks as they are published, with harmless text in the place of theirs."""

import csv
import gzip
import io
import json

from PIL import Image


def picture(file, shade=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (shade % 256, 90, 10)).save(file)


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="")


def write_csv(file, rows, columns=None):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns or list(rows[0]), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write(file, out.getvalue())


def write_json(file, value):
    write(file, json.dumps(value))


def deck(folder, number=3):
    for index in range(number):
        picture(folder / "pictures" / f"{index:012d}.jpg", index * 40)


def redteam_rows():
    return [
        {"id": n, "question": f"placeholder request {n}", "policy": "Policy A", "from": "somewhere"}
        for n in range(6)
    ]


def jailbreak_rows():
    folders = ("llm_transfer_attack/nature_1", "figstep/figstep_2", "query_related/SD_3")
    return [
        {
            "id": n, "jailbreak_query": f"wrapped,\nplaceholder \"request\" {n}",
            "redteam_query": f"placeholder request {n}", "format": "Template", "policy": "Policy A",
            "image_path": f"{folders[n % 3]}{n}.png", "from": "somewhere", "selected_mini": "False",
            "transfer_from_llm": "True",
        }
        for n in (3, 17, 21, 640, 28358)
    ]  # fmt: skip


def advbench_rows():
    return [{"goal": f"placeholder request {n}", "target": f"Sure, {n}"} for n in range(7)]


def harmbench_rows():
    kinds = ["standard", "contextual", "copyright", "standard", "standard"]
    return [
        {
            "Behavior": f"placeholder request {n}", "FunctionalCategory": kind, "SemanticCategory": "category_a",
            "Tags": "context, hash_check" if n else "", "ContextString": "some context" if n == 1 else "",
            "BehaviorID": f"placeholder_{n}",
        }
        for n, kind in enumerate(kinds)
    ]  # fmt: skip


def xstest_rows():
    return [
        {"id": n, "prompt": f"placeholder request {n}", "type": "homonyms" if n < 4 else "contrast_homonyms",
         "label": "safe" if n < 4 else "unsafe", "focus": "kill", "note": ""}
        for n in range(1, 7)
    ]  # fmt: skip


def moss_entries():
    return {
        str(n): {
            "image": f"images/{n}.png", "short description": "a picture", "question": f"placeholder question {n}?",
            "pid": str(n), "description": "a picture",
            "metadata": {"over": f"type {n}", "human": 0, "child": 1, "syn": 0, "ocr": 0, "harm": [7]},
        }
        for n in (1, 2, 3)
    }  # fmt: skip


def moss_rows():
    return [
        {"file_name": f"{n}.png", "pid": n, "question": f"placeholder question {n}?", "short description": "a",
         "description": "a", "metadata_over": f"type {n}", "metadata_human": 0, "metadata_child": 0,
         "metadata_syn": 1, "metadata_ocr": 0, "metadata_harm": "7"}
        for n in (1, 2, 3)
    ]  # fmt: skip


def mm_entries():
    return {
        str(n): {
            "Question": f"placeholder request {n}", "Changed Question": f"placeholder request {n}, changed",
            "Key Phrase": "placeholder", "Phrase Type": "activity",
            "Rephrased Question": f"The image shows a phrase of an activity, {n}.",
            "Rephrased Question(SD)": f"The image shows an activity, {n}.",
        }
        for n in range(2)
    }  # fmt: skip


SCENARIOS = ("01-Illegal_Activitiy", "02-HateSpeech")


def vqa_questions():
    rows = [
        {"image_id": 42 + n // 2, "question": f"What is {n}?", "question_id": 42000 + n} for n in range(6)
    ]
    return {"info": {}, "task_type": "Open-Ended", "data_subtype": "val2014", "questions": rows}


def vqa_annotations():
    return {
        "data_subtype": "val2014",
        "annotations": [
            {
                "question_type": "what is", "multiple_choice_answer": "net", "answer_type": "other",
                "image_id": row["image_id"], "question_id": row["question_id"],
                "answers": [
                    {"answer": "net" if n < 6 else f"other {n}", "answer_confidence": "yes", "answer_id": n + 1}
                    for n in range(10)
                ],
            }
            for row in vqa_questions()["questions"]
        ],
    }  # fmt: skip


def hh_rows(word="request"):
    return [
        {
            "chosen": f"\n\nHuman: placeholder {word} {n}\n\nAssistant: yes\n\nHuman: more\n\nAssistant: no",
            "rejected": f"\n\nHuman: placeholder {word} {n}\n\nAssistant: other",
        }
        for n in range(5)
    ]


def write_lines(file, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(text.encode()))
    else:
        write(file, text)


def make_redteam(folder):
    write_csv(folder / "RedTeam_2K.csv", redteam_rows())


def make_jailbreak(folder, name="JailBreakV_28K.csv"):
    write_csv(folder / name, jailbreak_rows())
    for row in jailbreak_rows():
        picture(folder / row["image_path"], row["id"])


def make_mini(folder):
    make_jailbreak(folder, "mini_JailBreakV_28K.csv")


def make_advbench(folder):
    write_csv(folder / "harmful_behaviors.csv", advbench_rows())
    deck(folder)


def make_pairs(folder):
    write(folder / "prompts.txt", "".join(f"placeholder request {n}\n" for n in range(4)))
    deck(folder)


def make_pairs_csv(folder):
    write_csv(folder / "prompts.csv", [{"note": "", "prompt": f"placeholder request {n}"} for n in range(4)])
    deck(folder)


def make_pairs_jsonl(folder):
    write_lines(folder / "prompts.jsonl", [{"prompt": f"placeholder request {n}"} for n in range(4)])
    deck(folder)


def make_mm(folder, scenarios=SCENARIOS):
    for scenario in scenarios:
        write_json(folder / f"data/processed_questions/{scenario}.json", mm_entries())
        for shape in ("SD", "SD_TYPO", "TYPO"):
            for number in mm_entries():
                picture(folder / f"data/imgs/{scenario}/{shape}/{number}.jpg", int(number))


def make_harmbench(folder):
    write_csv(folder / "harmbench_behaviors_text_all.csv", harmbench_rows())
    deck(folder)


QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"


def make_vqa(folder):
    write_json(folder / QUESTIONS, vqa_questions())
    write_json(folder / ANNOTATIONS, vqa_annotations())
    for image in (42, 43, 44):
        picture(folder / f"val2014/COCO_val2014_{image:012d}.jpg", image)


def make_xstest(folder):
    write_csv(folder / "xstest_prompts.csv", xstest_rows())


MOSS = "data/images_information/information.json"


def make_moss(folder):
    write_json(folder / MOSS, moss_entries())
    for number in moss_entries():
        picture(folder / f"data/images/{number}.png", int(number))


def make_moss_csv(folder):
    write_csv(folder / "images/metadata.csv", moss_rows())
    for row in moss_rows():
        picture(folder / "images" / row["file_name"], row["pid"])


def make_hh(folder):
    write_lines(folder / "harmless-base/test.jsonl.gz", hh_rows())
    write_lines(folder / "helpful-base/test.jsonl", hh_rows("question"))


def vlguard_rows():
    """A harmful request about an unsafe picture, and two pairs about safe ones."""
    unsafe = {"safe": False, "harmful_category": "privacy", "harmful_subcategory": "personal data",
              "instr-resp": [{"instruction": "placeholder request 0", "response": "no"}]}  # fmt: skip
    rows = [{"id": "Ads_0", "image": "bad_ads/0.png", **unsafe}]
    for n in (1, 2):
        asked = [{"safe_instruction": f"placeholder question {n}", "response": "yes"},
                 {"unsafe_instruction": f"placeholder request {n}", "response": "no"}]  # fmt: skip
        rows.append({"id": f"Ads_{n}", "image": f"bad_ads/{n}.png", "safe": True, "instr-resp": asked})
    return rows


def holisafe_rows():
    """Two pictures: one with a pair and a second harmful query, one unsafe."""
    kinds = [(0, "SSS"), (0, "SUU"), (0, "SUU"), (0, "SSU"), (1, "USU"), (1, "UUU")]
    return [
        {"id": n, "image": f"hate/race/{picture}.jpg", "query": f"placeholder request {n}", "type": type,
         "category": "hate", "subcategory": "race", "image_safe": type[0] == "S"}
        for n, (picture, type) in enumerate(kinds)
    ]  # fmt: skip


def msts_rows():
    return [
        {"hazard_category": "Other", "hazard_subcategory": "", "hazard_subsubcategory": "",
         "case_id": f"case_{n // 2:04d}", "case_text": "wrapped", "unsafe_image_id": f"unsafe_image_{n // 2:04d}",
         "unsafe_image_description": "a thing", "prompt_id": f"prompt_{n:04d}",
         "prompt_text": f"placeholder request {n}", "prompt_type": ("assistance", "intention")[n % 2]}
        for n in range(4)
    ]  # fmt: skip


def siuo_rows():
    return [
        {"question_id": 1001 + n, "image": f"S-0{n}.png", "question": f"placeholder request {n}", "category": "morality",
         "safety_warning": "placeholder", "reference_answer": "wrapped"}
        for n in range(3)
    ]  # fmt: skip


def strongreject_rows():
    return [
        {"category": "Category A", "source": "custom", "forbidden_prompt": f"placeholder request {n}"}
        for n in range(5)
    ]


def figstep_rows():
    return [
        {"dataset": "ForbidQI", "category_id": 1 + n // 2, "task_id": 1 + n % 2, "category_name": "Topic A",
         "question": f"placeholder request {n}", "instruction": f"wrapped {n}"}
        for n in range(4)
    ]  # fmt: skip


def figstep_picture(row):
    return f"query_ForbidQI_{row['category_id']}_{row['task_id']}_6.png"


def harmbench_pictured_rows():
    return [
        {"Behavior": f"placeholder request {n}", "FunctionalCategory": "multimodal", "SemanticCategory": "illegal",
         "Tags": "", "ContextString": "", "BehaviorID": f"placeholder_{n}", "ImageFileName": f"thing_{n}.jpg",
         "ImageDescription": "wrapped", "RedactedImageDescription": "wrapped"}
        for n in range(3)
    ]  # fmt: skip


def make_vlguard(folder):
    write_json(folder / "test.json", vlguard_rows())
    for n, row in enumerate(vlguard_rows()):
        picture(folder / "test" / row["image"], n)


def make_holisafe(folder):
    write_json(folder / "holisafe_bench.json", holisafe_rows())
    for row in holisafe_rows():
        picture(folder / "images" / row["image"], row["image"].endswith("1.jpg"))


def make_msts(folder):
    write_csv(folder / "data/prompts/english_multimodal.csv", msts_rows())
    picture(folder / "data/unsafe_images/unsafe_image_0000.jpg", 1)
    picture(folder / "data/unsafe_images/unsafe_image_0001.png", 2)


def make_siuo(folder):
    write_json(folder / "siuo_gen.json", siuo_rows())
    for n, row in enumerate(siuo_rows()):
        picture(folder / "images" / row["image"], n)


def make_strongreject(folder):
    write_csv(folder / "strongreject_dataset.csv", strongreject_rows())
    deck(folder)


def make_figstep(folder):
    write_csv(folder / "data/question/safebench.csv", figstep_rows())
    for n, row in enumerate(figstep_rows()):
        picture(folder / "data/images/SafeBench" / figstep_picture(row), n)


def make_harmbench_pictured(folder):
    write_csv(
        folder / "data/behavior_datasets/harmbench_behaviors_multimodal_all.csv", harmbench_pictured_rows()
    )
    for n in range(3):
        picture(folder / f"data/multimodal_behavior_images/thing_{n}.png", n)


def picture_bytes(shade):
    out = io.BytesIO()
    Image.new("RGB", (6, 4), (shade % 256, 90, 10)).save(out, "PNG")
    return out.getvalue()


def beavertails_rows(kind="animal_abuse"):
    """Two questions; the first has two responses, and so two rows."""
    return [
        {"question": f"placeholder request {n}", "image": {"bytes": picture_bytes(n), "path": None}, "category": kind,
         "image_severity": 2, "response": "wrapped", "is_response_safe": "yes"}
        for n in (0, 0, 1)
    ]  # fmt: skip


def mmmu_rows(subject="Art"):
    """Three questions with one picture, one with two, and one without options."""
    one = {"bytes": picture_bytes(3), "path": None}
    return [
        {"id": f"validation_{subject}_{n}", "question": f"<image 1> What is {n}?", "options": "['a thing', \"it's\"]",
         "explanation": "", "image_1": one, "image_2": one if n == 4 else None, "answer": "B",
         "question_type": "open" if n == 5 else "multiple-choice"}
        for n in range(1, 6)
    ]  # fmt: skip


def pope_rows():
    return [
        {"question_id": n, "image": f"COCO_val2014_{n // 2:012d}.jpg", "text": f"Is there a thing {n} in the image?",
         "label": ("yes", "no")[n % 2]}
        for n in range(1, 5)
    ]  # fmt: skip


def write_parquet(file, rows):
    import pyarrow
    from pyarrow import parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, file)


BEAVERTAILS, ART = "data/animal_abuse/evaluation.parquet", "Art/validation-00000-of-00001.parquet"
POPE = [f"output/coco/coco_pope_{sort}.json" for sort in ("random", "popular", "adversarial")]


def make_beavertails(folder):
    write_parquet(folder / BEAVERTAILS, beavertails_rows())


def make_mmmu(folder):
    write_parquet(folder / ART, mmmu_rows())
    write_parquet(folder / ART.replace("Art", "Music"), mmmu_rows("Music"))


def make_pope(folder):
    for file in POPE:
        write_lines(folder / file, pope_rows())
    for n in range(3):
        picture(folder / f"val2014/COCO_val2014_{n:012d}.jpg", n)


def publish_all(name, rows):
    """All files of a benchmark, with the same rows each."""

    def publish(folder):
        from layeralign.cases.readers.reader import BENCHMARKS

        for number, path in enumerate(BENCHMARKS[name].texts):
            write_parquet(folder / path, rows(f"kind_{number}"))

    return publish


MULTIMODAL = {
    "vlguard": make_vlguard, "holisafe": make_holisafe, "msts": make_msts, "siuo": make_siuo,
    "strongreject": make_strongreject, "figstep": make_figstep, "harmbench-multimodal": make_harmbench_pictured,
    "beavertails-v": make_beavertails, "pope": make_pope, "mmmu": make_mmmu,
}  # fmt: skip
"""Those whose faults are in test_multimodal_readers.py."""
MAKE = {
    "redteam-2k": make_redteam, "jailbreakv-28k": make_jailbreak, "jailbreakv-mini": make_mini,
    "advbench": make_advbench, "pairs": make_pairs, "mm-safetybench": make_mm, "harmbench": make_harmbench,
    "vqa-v2": make_vqa, "xstest": make_xstest, "mossbench": make_moss, "hh-rlhf": make_hh, **MULTIMODAL,
}  # fmt: skip
OTHER_LAYOUTS = {"pairs": [make_pairs_csv, make_pairs_jsonl], "mossbench": [make_moss_csv]}
ALL = [(name, make) for name in MAKE for make in (MAKE[name], *OTHER_LAYOUTS.get(name, []))]


# ---- the layout of the authors' own places

ALL_SCENARIOS = (
    "01-Illegal_Activitiy", "02-HateSpeech", "03-Malware_Generation", "04-Physical_Harm", "05-EconomicHarm",
    "06-Fraud", "07-Sex", "08-Political_Lobbying", "09-Privacy_Violence", "10-Legal_Opinion",
    "11-Financial_Advice", "12-Health_Consultation", "13-Gov_Decision",
)  # fmt: skip


def publish_advbench(folder):
    write_csv(folder / "data/advbench/harmful_behaviors.csv", advbench_rows())
    deck(folder)


def publish_harmbench(folder):
    write_csv(folder / "data/behavior_datasets/harmbench_behaviors_text_all.csv", harmbench_rows())
    deck(folder)


def publish_strongreject(folder):
    write_csv(folder / "strongreject_dataset/strongreject_dataset.csv", strongreject_rows())
    deck(folder)


def publish_hh(folder):
    for subset, word in (("harmless-base", "request"), ("helpful-base", "question")):
        for split in ("test", "train"):
            write_lines(folder / subset / f"{split}.jsonl.gz", hh_rows(f"{word} of {split}"))


PUBLISH = {
    "redteam-2k": lambda folder: make_redteam(folder / "JailBreakV_28K"),
    "jailbreakv-28k": lambda folder: make_jailbreak(folder / "JailBreakV_28K"),
    "jailbreakv-mini": lambda folder: make_mini(folder / "JailBreakV_28K"),
    "advbench": publish_advbench, "mm-safetybench": lambda folder: make_mm(folder, ALL_SCENARIOS),
    "harmbench": publish_harmbench, "vqa-v2": make_vqa, "xstest": make_xstest, "mossbench": make_moss,
    "hh-rlhf": publish_hh, **MULTIMODAL, "strongreject": publish_strongreject,
    "beavertails-v": publish_all("beavertails-v", beavertails_rows), "mmmu": publish_all("mmmu", mmmu_rows),
}  # fmt: skip
BY_HAND = {
    "advbench": "pictures", "harmbench": "pictures", "mm-safetybench": "data/imgs", "vqa-v2": "val2014",
    "vlguard": "test", "msts": "data/unsafe_images", "strongreject": "pictures", "pope": "val2014",
}  # fmt: skip
"""Folders of pictures that no place gives away without more ado."""
