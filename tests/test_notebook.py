"""Every cell of the notebook runs, with one step of training on a made-up clip."""

import json

from tiny_stmixer import ROOT, write_video

SHORT = {'train_cfg.max_iters': 1, 'param_scheduler': []}


def test_the_notebook_runs(tmp_path, monkeypatch):
    write_video(tmp_path / 'data/basketball/basketball.mp4', frames=300, fps=30)
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in json.loads((ROOT / 'demo/quickstart.ipynb').read_text())['cells']:
        if cell['cell_type'] == 'code':
            code = ''.join(line for line in cell['source'] if line[0] != '%')
            exec(code.replace('settings = {', f'settings = {SHORT} | {{'), names)
    assert len(names['video'].keyframes) == 20
    assert (tmp_path / names['result']['visualization'][0]).is_file()
    assert names['model'].cfg.model.decoder.num_stages == 2
