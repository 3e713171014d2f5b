"""The domains of the short profile, as data. The last two are never trained on."""

from __future__ import annotations

from cm2.worlds.short import Spec, short_domain

_CITIES = ("Lima", "Oslo", "Rome", "Cairo", "Paris", "Delhi", "Tokyo", "Berlin", "Madrid", "Dublin", "Boston", "Vienna")
_PEOPLE = ("Ana", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Ivan", "Julia", "Maria", "Peter", "Sara")
_TIMES = tuple(f"{hour:02d}:{minute}" for hour in range(7, 20) for minute in ("00", "15", "30", "45"))
_SORRY = "{Sorry, I could not find|Sorry, there is no match for|I am sorry, I did not find} <wish>"
_TAKEN = "{Sorry, <label> is not available|I am sorry, <label> is not available anymore|Sorry, <label> is taken}."
_TELL_TOTAL = "{tell|give} me the code and {the total|total}"
_DONE_TOTAL = " <label>{: code|, code} <code>, total <given>."

HOTEL = Spec(
    name="hotel",
    table="hotels",
    letter="H",
    find="search_hotels",
    key="city",
    keys=_CITIES,
    fields={"name": ("Sol", "Palm", "Ritz", "Star", "Lake Inn", "Park Inn", "Crown", "Garden"), "price": (45, 190)},
    act="book_hotel",
    ref="hotel_id",
    amount="nights",
    cost="price",
    undo="cancel_hotel",
    wishes={
        "min price": "the cheapest {hotel|room|place}",
        "max price": "the most expensive {hotel|room}",
        "is name": "the <value>{| hotel}",
        "under": "a {hotel|room|place} {under|below|for less than} $<limit>{| a night}",
    },
    asks="{{Book|Reserve|Get me|Please book|I need|I want|Can you book} <wish> in <key> for <amount> nights"
    "|{I am in <key> for|Going to <key> for} <amount> nights, {book|reserve|get} me <wish>}{.|, thanks.|. Thanks!}",
    tell=_TELL_TOTAL,
    done="{Booked|Done, I booked|I booked}" + _DONE_TOTAL,
    none=_SORRY + " in <key>.",
    taken=_TAKEN,
)
FLIGHT = Spec(
    name="flight",
    table="flights",
    letter="F",
    find="find_flights",
    key="to",
    keys=_CITIES,
    fields={"time": _TIMES, "price": (60, 420)},
    act="book_flight",
    ref="flight_id",
    cost="price",
    gives="gate",
    given=("@#", "@##"),
    undo="cancel_flight",
    wishes={
        "min price": "the cheapest {flight|one|ticket}",
        "min time": "the earliest {flight|one}",
        "max time": "the latest {flight|one}",
        "is time": "the <value> {flight|one}",
        "under": "a {flight|ticket} {under|below|for less than} $<limit>",
    },
    asks="{{Book|Get me|Please book|I need|Can you book|I want to take} <wish> to <key>"
    "|{Flying|I have to go|I am off} to <key>, {book|get} me <wish>"
    "|{Which flights go|What flies} to <key>? {Book|Take} <wish>}{.|, thanks.|. Thanks!}",
    tell="{tell|give} me the code and the gate",
    done="{Booked|Done, I booked|I booked} the <label>{: code|, code} <code>, gate <given>.",
    none=_SORRY + " to <key>.",
    taken="{Sorry, the <label> flight is not available|I am sorry, the <label> is not available anymore}.",
)
PHARMACY = Spec(
    name="pharmacy",
    table="drugs",
    letter="R",
    find="get_drugs",
    key="patient",
    keys=_PEOPLE,
    fields={"drug": ("Zoral", "Amixin", "Betadol", "Corvan", "Lipex", "Nexor", "Tramil", "Velox"), "refills": (1, 9)},
    act="refill_drug",
    ref="drug_id",
    gives="ready",
    given=_TIMES,
    undo="cancel_refill",
    wishes={
        "is drug": "<value>",
        "min refills": "the {drug|medicine|one} with the fewest refills",
        "max refills": "the {drug|medicine|one} with the most refills",
    },
    asks="{{Refill|Please refill|Renew|Can you refill|I need to refill} <wish> for <key>"
    "|{I am|This is|My name is} <key>, {refill|please refill} <wish>"
    "|<key> {here, I need|needs} a refill of <wish>}{.|, thanks.|. Thanks!}",
    tell="{tell|give} me the code and when it is ready",
    done="{Refilled|Done, I refilled|I refilled} <label>{: code|, code} <code>, ready at <given>.",
    none=_SORRY + " for <key>.",
    taken=_TAKEN,
)
LIBRARY = Spec(
    name="library",
    table="books",
    letter="B",
    find="search_books",
    key="author",
    keys=("Adler", "Brook", "Costa", "Doyle", "Evans", "Frost", "Gomez", "Hardy", "Keats", "Lopez", "Moore", "Novak"),
    fields={
        "title": ("Red Moon", "The Key", "Cold Sea", "Two Cats", "Iron Hill", "Last Bus", "Snow", "Rivers"),
        "year": (1950, 2024),
    },
    act="reserve_book",
    ref="book_id",
    gives="shelf",
    given=("@#", "@##"),
    undo="cancel_hold",
    wishes={
        "min year": "the {oldest|earliest} {book|one|title}",
        "max year": "the {newest|latest} {book|one|title}",
        "is title": "<value>",
    },
    asks="{{Reserve|Please reserve|Hold|Can you reserve|I want to read|Get me} <wish> by <key>"
    "|{I like|I love|I read} <key>, {reserve|please hold} <wish>"
    "|{Any books by|What do you have by} <key>? {Reserve|Hold} <wish>}{.|, thanks.|. Thanks!}",
    tell="{tell|give} me the code and the shelf",
    done="{Reserved|Done, I reserved|I reserved} <label>{: code|, code} <code>, shelf <given>.",
    none=_SORRY + " by <key>.",
    taken=_TAKEN,
)
BANK = Spec(
    name="bank",
    table="bills",
    letter="L",
    find="list_bills",
    key="client",
    keys=_PEOPLE,
    fields={"payee": ("Water", "Power", "Rent", "Phone", "Gas", "Gym", "Garage", "School"), "amount": (15, 240)},
    act="pay_bill",
    ref="bill_id",
    cost="amount",
    gives="fee",
    given=(1, 2, 3, 4, 5, 6),
    undo="cancel_payment",
    wishes={
        "min amount": "the {smallest|lowest} bill",
        "max amount": "the {largest|highest|biggest} bill",
        "is payee": "the <value> bill",
        "under": "the bill {under|below} $<limit>",
    },
    asks="{{Pay|Please pay|Can you pay|I want to pay|Settle} <wish> of <key>"
    "|{I am|This is|My name is} <key>, {pay|please pay|settle} <wish>"
    "|<key> {here, pay|speaking, please pay} <wish>}{.|, thanks.|. Thanks!}",
    tell="{tell|give} me the code and the fee",
    done="{Paid|Done, I paid|I paid} <label>{: code|, code} <code>, fee <given>.",
    none=_SORRY + " for <key>.",
    taken=_TAKEN,
)
FOOD = Spec(
    name="food",
    table="dishes",
    letter="D",
    find="get_menu",
    key="place",
    keys=("Bella", "Wok", "Taj", "Olive", "Sakura", "Corner", "Mama", "Bistro", "Nile", "Pepper", "Lotus", "Diner"),
    fields={"dish": ("pizza", "soup", "salad", "curry", "noodles", "burger", "rice", "tacos"), "price": (4, 29)},
    act="order_dish",
    ref="dish_id",
    amount="count",
    cost="price",
    undo="cancel_order",
    wishes={
        "min price": "the cheapest {dish|thing|meal}",
        "max price": "the most expensive {dish|meal}",
        "is dish": "the <value>",
        "under": "the {dish|meal} {under|below|for less than} $<limit>",
    },
    asks="{{Order|Please order|Get me|I want|Can you order|I would like} <wish> from <key>"
    "{, <amount> times|, <amount> of it|, <amount> portions}"
    "|{We are <amount> people, order|Food for <amount>, get} <wish> from <key>}{.|, thanks.|. Thanks!}",
    tell=_TELL_TOTAL,
    done="{Ordered|Done, I ordered|I ordered}" + _DONE_TOTAL,
    none=_SORRY + " at <key>.",
    taken=_TAKEN,
)
CAR = Spec(
    name="car",
    table="cars",
    letter="C",
    find="find_cars",
    key="city",
    keys=_CITIES,
    fields={"model": ("Golf", "Polo", "Clio", "Fiesta", "Corsa", "Yaris", "Focus", "Panda"), "rate": (19, 99)},
    act="rent_car",
    ref="car_id",
    amount="days",
    cost="rate",
    undo="cancel_rental",
    wishes={
        "min rate": "the cheapest {car|one}",
        "max rate": "the most expensive {car|one}",
        "is model": "{the|a} <value>",
        "under": "a car {under|below|for less than} $<limit>{| a day}",
    },
    asks="{{Rent|Rent me|Please rent|I need|Get me|Can you rent} <wish> in <key> for <amount> days"
    "|{I am in <key> for|Landing in <key>, staying} <amount> days, {rent|get} me <wish>}{.|, thanks.|. Thanks!}",
    tell=_TELL_TOTAL,
    done="{Rented|Done, I rented|I rented}" + _DONE_TOTAL,
    none=_SORRY + " in <key>.",
    taken=_TAKEN,
)
TELECOM = Spec(
    name="telecom",
    table="packs",
    letter="P",
    find="search_packs",
    key="country",
    keys=("Peru", "Norway", "Italy", "Egypt", "France", "India", "Japan", "Spain", "Chile", "Kenya", "Greece", "Cuba"),
    fields={"gb": (1, 40), "price": (5, 60)},
    act="add_pack",
    ref="pack_id",
    cost="price",
    gives="ends",
    given=("May 3", "May 9", "June 5", "June 8", "July 2", "July 7", "April 4", "April 6"),
    undo="remove_pack",
    wishes={
        "min price": "the cheapest {pack|data pack|one}",
        "max gb": "the {largest|biggest} {pack|data pack}",
        "min gb": "the smallest {pack|data pack}",
        "under": "a {pack|data pack} {under|below|for less than} $<limit>",
    },
    asks="{{Add|Please add|I need|Get me|Activate|Can you add} <wish> for <key>"
    "|{I travel|I am going|We fly} to <key>, {add|get me} <wish>"
    "|{What data packs are there|Which packs work} for <key>? {Add|Take} <wish>}{.|, thanks.|. Thanks!}",
    tell="{tell|give} me the code and the end date",
    done="{Added|Done, I added|I added} the <label> GB pack{: code|, code} <code>, ends <given>.",
    none=_SORRY + " for <key>.",
    taken="{Sorry, the <label> GB pack is not available|I am sorry, the <label> GB pack is not available anymore}.",
)
TICKETS = Spec(
    name="tickets",
    table="shows",
    letter="S",
    find="list_shows",
    key="hall",
    keys=("Arena", "Dome", "Opera", "Forum", "Palace", "Cave", "Odeon", "Lyric", "Globe", "Apollo", "Scala", "Roxy"),
    fields={"artist": ("Nova", "Kites", "Luna", "Mads", "Ember", "Wolves", "Daisy", "Tides"), "price": (15, 140)},
    act="buy_ticket",
    ref="show_id",
    amount="seats",
    cost="price",
    undo="return_ticket",
    wishes={
        "min price": "the cheapest {show|concert|one}",
        "max price": "the most expensive {show|concert}",
        "is artist": "{the <value> show|<value>}",
        "under": "a {show|concert} {under|below|for less than} $<limit>",
    },
    asks="{{Buy|Please buy|Get me|I want|Can you get} <amount> seats for <wish> at the <key>"
    "|{We are <amount>, get us|<amount> of us want} <wish> at the <key>}{.|, thanks.|. Thanks!}",
    tell=_TELL_TOTAL,
    done="{Bought|Done, I bought|I bought}" + _DONE_TOTAL,
    none=_SORRY + " at the <key>.",
    taken=_TAKEN,
)
CLINIC = Spec(
    name="clinic",
    table="slots",
    letter="V",
    find="find_slots",
    key="doctor",
    keys=("Ahmed", "Blum", "Chen", "Diaz", "Ekman", "Fuchs", "Green", "Haas", "Kim", "Lang", "Meyer", "Okoro"),
    fields={"time": _TIMES, "fee": (20, 150)},
    act="schedule_visit",
    ref="slot_id",
    cost="fee",
    gives="room",
    given=("@#", "@##"),
    undo="cancel_visit",
    wishes={
        "min time": "the earliest {slot|visit|appointment}",
        "max time": "the latest {slot|visit|appointment}",
        "min fee": "the cheapest {slot|visit|appointment}",
        "is time": "the <value> {slot|visit|appointment}",
        "under": "a {slot|visit} {under|below|for less than} $<limit>",
    },
    asks="{{Book|Please book|I need|Get me|Can you schedule|Schedule} <wish> with Dr <key>"
    "|{I have to see|I want to see|My doctor is} Dr <key>, {book|get me} <wish>}{.|, thanks.|. Thanks!}",
    tell="{tell|give} me the code and the room",
    done="{Booked|Done, I booked|I booked} the <label>{: code|, code} <code>, room <given>.",
    none=_SORRY + " with Dr <key>.",
    taken="{Sorry, the <label> slot is not available|I am sorry, the <label> is not available anymore}.",
)

SHORT = tuple(
    short_domain(spec) for spec in (HOTEL, FLIGHT, PHARMACY, LIBRARY, BANK, FOOD, CAR, TELECOM, TICKETS, CLINIC)
)
