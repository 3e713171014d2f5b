"""Which user messages are an explicit yes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.judge.assent import confirms

YES = """yes
Yes.
YES PLEASE
Yes, please.
yes, go ahead
Yeah, that works. Please proceed.
Yep!
Sure.
sure, go ahead
OK
ok do it
Okay, please proceed.
Please go ahead and book it.
go ahead
Proceed.
I confirm.
I can confirm that. Please cancel it.
Confirmed
That's correct.
Yes, that's right. Thank you!
Great, yes, please cancel it.
Absolutely, do that.
Yes, I want to cancel. No insurance needed.
No problem, go ahead.
Yes, could you please go ahead and book it?
Can you go ahead and do that?
I'd like to proceed with the first option.
Yes. Also, what is the baggage allowance?
Sounds good.
do it
I agree
Yes — please"""

NO = """no
No, thanks.
Nope
Not yet.
I'm not sure.
Yes, but change the date first.
Yes, only if the fee is waived.
Proceed only if it is free.
Don't proceed.
Please do not go ahead.
Wait, stop.
Hold on, yes or no?
Can I cancel it?
Should we proceed?
What would it cost to go ahead?
I want to cancel my order.
Okay, I see. What about another flight?
ok?
Yes. But first tell me the price.
Sure, however I'd like another seat.
How do I confirm?
If it's free, go ahead.
Never mind.
The yes-men said so
My name is Ann.
Please cancel order A100.
Correct the name, please.
Confirm my booking number.
Fine dining, please.
I did not say go ahead.

   """


@pytest.mark.parametrize("text", YES.splitlines())
def test_an_explicit_yes(text: str) -> None:
    assert confirms(text)


@pytest.mark.parametrize("text", NO.splitlines())
def test_no_yes(text: str) -> None:
    assert not confirms(text)


@given(st.text(max_size=200))
def test_anything_can_be_read(text: str) -> None:
    assert confirms(text) in (True, False)


@given(st.sampled_from(YES.splitlines()), st.sampled_from(["No. ", "Wait! ", "Don't. "]))
def test_a_denial_in_front_takes_it_back(text: str, denial: str) -> None:
    assert not confirms(denial + text)
