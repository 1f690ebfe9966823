"""Populations of honest callers and campaigns, and what they send; knows nothing of the watcher.

Everything is drawn from one seed, as columns: one array element for each account or call.

What scales how, with the number of accounts (full scale: a million honest ones, a campaign of
25,000):

| what | scales |
|---|---|
| accounts, honest and fake | linearly |
| calls of one account | not at all: 26 a day of a fake one |
| pools of addresses | linearly, so that the rate at which two accounts meet on one address stays |
| cells of a campaign (500 of 25,000) | linearly, five at least |
| confounders: SASE users (20,000), hackathon (2,000 signups), university | linearly |
| teams, households, resellers, accounts to a card or to a pattern of mail | not at all |
| pipelines (scaffolds) of one operator | not at all |
| time: days, bursts, sessions, releases | not at all |
"""
