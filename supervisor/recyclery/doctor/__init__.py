"""What a deployment rests on: each thing is looked at (`look_*`), then judged (`judge_*`, pure).

Nothing here changes anything.
"""
