"""Where a secret has a place of its own in a text: behind `Authorization: Basic`, in a webhook, in SQL.

Every expression takes time linear in the length of its text.
"""

import re

from watchbill.kinds.derivation.redact_structures import HEREDOCS


def _substitution(mark: str) -> str:
    """`sed 's/{{password}}/x/g'` with such a mark, but not `s/x/$PASSWORD/`."""
    mark = re.escape(mark)
    other = rf"[^\n{mark}]"
    names = (
        r"passw|pwd|secret|token(?!i[sz])|credential|api[_-]?key|(?:access|private|auth|_)[_-]?key"
    )
    reference = rf"[\"']{{0,2}}\$\{{?\w{{1,128}}+\}}?[\"']{{0,2}}{mark}"
    return (
        rf"(\bs{mark}{other}{{0,128}}?(?:{names}){other}{{0,128}}+{mark})(?!{reference})"
        rf"(?:\\.|[^\n\\{mark}]){{1,1024}}+"
    )


_REFERENCE_ALONE = r"\$(?:\w{1,128}+|\{\w{1,128}+\}|\(\w{1,128}+\))"
_SENTENCE = (
    r"[a-z]{1,32}+\s{1,4}[a-z]{1,32}+(?:\s|$)|(?:auth|authentication|authorization|credentials?|token|header|scheme"
    r"|required|missing|failed|invalid|expired|unsupported|enabled|disabled)(?:\s|$)"
)
"""`authorization: basic auth is required`, but not `authorization: basic letters`."""
BUNDLER_LOGIN = (
    r"(\bBUNDLE_(?!(?:WITH|WITHOUT|ONLY|(?:MIRROR|BUILD|LOCAL)__[\w./:-]{1,128}+)=)\w{1,128}+=[\"']?"
    r"[^\s\"':/=,]{1,64}+:)(?!//|[:$]|[0-9]{1,5}(?:[\s\"',/]|$))[^\s\"']{1,256}+"
)
"""`BUNDLE_GEMS=ada:x`, whatever the host is called."""
_PROMPTED = r"\\{0,3}[\"']default\\{0,3}[\"']\s{0,4}:\s{0,4}\\{0,3}[\"']"
_IS_ASKED_HIDDEN = r"[\"']password\\{0,3}[\"']\s{0,4}:\s{0,4}true\b"
PLACES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # What a webhook's address consists of is its secret.
        r"(https://(?:hooks\.slack\.com/|discord(?:app)?\.com/api/webhooks/|hooks\.zapier\.com/"
        r"|[\w-]{1,63}\.webhook\.office\.com/|chat\.googleapis\.com/v1/spaces/"
        r"|open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/|api\.telegram\.org/bot))[^\s\"'<>]++",
        r"(://[\w.-]{0,64}conda[\w.-]{0,64}+/t/)[^\s/\"'<>]{1,256}+",
        r"(\b(?:authorization(?:[\"']?\s{0,4}[:=]|[\"']\s{0,4},)\s{0,4}[\"']?(?:bearer|basic|token"
        r"|negotiate|ntlm|hawk|apikey|aws4-hmac-sha256)|cookie:)\s{1,4})"
        rf"(?!\*\*\*|{_SENTENCE}|{_REFERENCE_ALONE}(?:[\s\"']|$))[^\s\"'][^\r\n\"']*+",
        r"(\blogin\s{1,4}\S{1,128}+\s{1,4}(?:account\s{1,4}\S{1,128}+\s{1,4})?password\s{1,4})\S++",  # .netrc
        # Oracle's ada/x@host:1521/service
        r"((?<![^\s\"'=])[\w$]{1,64}+/)[^@\s/:\"']{1,256}+(?=@(?://)?[\w.-]{1,253}+:[0-9]{4,5}/\w)",
        r"(\bjdbc:oracle:\w{1,10}:)[^/\s]{1,128}+/[^@\s]{1,256}+(?=@)",
        r"(\bauthorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?digest\s{1,4})[^\r\n]++",
        r"(\bhttp-basic\.\S{1,64}+\s{1,4}\S{1,128}+\s{1,4})\S++",  # poetry config
        r"(\bsqlplus\s{1,4}(?:-\w{1,8}\s{1,4}){0,2}[^/\s]{1,128}+/)[^@\s]{1,256}+",
        rf"(\b(?:echo|printf|yes|cat\s{{1,4}}<<<)\s{{1,4}}(?:-[a-z]{{1,2}}\s{{1,4}})?)(?![\"']?{_REFERENCE_ALONE}[\"']?\s{{0,4}}\|)"
        r"[^|;&\n]{1,256}+"
        r"(?=\|[^|;&\n]{0,256}(?:--(?:password|token)-stdin|--with-token|\b(?:ch|smb)?passwd\b|--stdin\b"
        r"|\bsudo\s{1,4}-S|\bkinit\b|--passphrase-fd))",
        r"(--(?:(?:password|token)-stdin|with-token)\s{0,4}<<<\s{0,4})\S++",
        # echo x > /run/secrets/token, but not echo "$TOKEN" > …
        r"(\b(?:echo|printf|cat\s{1,4}<<<)\s{1,4}(?:-[a-z]{1,2}\s{1,4})?)(?![\"']?\$\{?\w{1,128}+\}?[\"']?\s{0,4}>)"
        r"[^|;&\n>]{1,256}+(?=(?:\|\s{0,4}base64\b[^|;&\n>]{0,32}+)?>{1,2}\s{0,4}[^\s|;&>]{0,128}"
        r"(?:token|passw|secret|credential|api[_-]?key|netrc|pgpass|id_rsa))",
        *HEREDOCS,
        BUNDLER_LOGIN,
        # a default for what an editor asks without showing it, in either order
        rf"({_IS_ASKED_HIDDEN}[^{{}}]{{0,256}}?{_PROMPTED})[^\"'\n\\]{{1,1024}}+",
        rf"({_PROMPTED})[^\"'\n\\]{{1,1024}}+(?=[^{{}}]{{1,256}}?{_IS_ASKED_HIDDEN})",
        r"(-dsonar\.login=|\bactivate-refresh-token\s{1,4}\S{1,128}+\s{1,4})\S++",  # gcloud auth
        r"((?:(?:(?:auth|credentials)(?:\s{0,4}=\s{0,4})?|\blogin)\(\s{0,4}[\"'][^\"'\n]{0,128}+[\"']"
        r"|\bjwt\.(?:en|de)code\(\s{0,4}(?:\w{1,64}+|\{[^{}\n]{0,256}+\}))\s{0,4},\s{0,4})"
        r"[\"'][^\"'\n]{1,256}+[\"']",  # requests' auth=("ada", "x") and HTTPBasicAuth
        r"((?:token|passw|secret|credential|pwprompt|\blogin\b|\bkinit\b|\bpass\b|\bkeyring\b|\bconfig\s{1,4}set\b"
        r"|\bsudo\s{1,4}-S|\bsu\s|\bcryptsetup\b)[^<>\n]{0,64}<<<\s{0,4})"
        r"(?![\"']?\$)\S++",
        r"((?<![\w:/.-])[\w.-]{1,64}+:)[^\s@:/\"']{1,256}+(?=@(?!sha)[\w.-]{1,253}+(?::[0-9]{1,5}\b|/[\w.-]))",
        r"(\b(?:lftp\s{1,4}(?:-e\s{1,4}\S{1,128}+\s{1,4})?|open\s{1,4})-u\s{1,4}[^\s,]{1,64}+,)\S++",
        r"((?<![\w:/.-]))[\w.-]{1,64}+:[^\s@:/\"']{1,256}+(?=@(?:tcp|unix)\()",  # Go's MySQL
        *map(_substitution, "/|#,@"),
        # DuckDB's and Snowflake's options
        r"([(,]\s{0,4}(?:secret|password|session_token|token|aws_secret_key)\s{1,4}\\?[\"'])[^\"'\n]{1,256}+",
        r"(\b(?:identified\s{1,4}(?:with\s{1,4}\S{1,64}+\s{1,4})?by(?:\s{1,4}password)?"
        r"|(?:with|encrypted|login|(?:user|role)\s{1,4}\S{1,128}+)\s{1,4}password)\s{1,4}\\?[\"'])"
        r"[^\"'\n]{1,256}+",  # SQL
        r"(\bconvertto-securestring\s{1,4}(?:-string\s{1,4})?)(?![$-])(?:\"[^\"\n]{1,256}+\"?|'[^'\n]{1,256}+'?|\S++)",
        # expect "password:"; send "x\r"
        r"((?:assw|token|secret)[^\n]{0,64};\s{0,4}send\s{1,4}(?:--\s{1,4})?\\?[\"'])"
        r"[^\"'\n]{1,256}?(?=\\[rn])",
        r"(\b(?:invalid\s{1,2}api[ _-]?key|api[ _-]?key\s{1,2}provided):\s{1,2})\S++",
        # host:port:database:user:password of a .pgpass
        r"((?<![^\s\"'])(?=[\w.-]{0,252}[A-Za-z*])[\w.*-]{1,253}+:(?:[0-9]{1,5}|\*):[^:\s]{1,64}+:[^:\s/]{1,64}+:)[^:\s\"']{1,256}+(?![:\w])",
    )
)
"""Where a secret has a place of its own: all that follows the first group goes."""
